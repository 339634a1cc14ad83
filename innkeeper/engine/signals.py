"""Signals by number or name, as kill(1) and docker take them."""

import signal

from innkeeper.errors import InnkeeperError


def parse(text: str) -> int:
    """The number of signal `text`: "9", "KILL", "SIGKILL", "sigkill", "RTMIN+3". Raises InnkeeperError otherwise."""
    word = text.strip().upper().removeprefix("SIG")
    if word.isdigit() and 1 <= int(word) <= 64:
        return int(word)
    name, plus, offset = word.partition("+")
    if plus and name == "RTMIN" and offset.isdigit() and int(offset) <= signal.SIGRTMAX - signal.SIGRTMIN:
        return signal.SIGRTMIN + int(offset)
    try:
        return int(signal.Signals[f"SIG{word}"])
    except KeyError:
        raise InnkeeperError(f"no such signal: {text}") from None


def name(number: int) -> str:
    """SIGTERM for 15, "signal 40" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
