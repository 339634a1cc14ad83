"""Signals by number or name, in the forms that kill(1) and docker accept."""

import signal

from innkeeper.errors import InnkeeperError


def parse(text: str) -> int:
    """Return the number of a signal: "9", "KILL", "SIGKILL", "sigkill" or "RTMIN+3".

    Raises InnkeeperError for anything else.
    """
    word = text.strip().upper().removeprefix("SIG")
    if word.isdigit() and 1 <= int(word) <= 64:
        return int(word)
    name, plus, offset = word.partition("+")
    if plus and name == "RTMIN" and offset.isdigit() and int(offset) <= signal.SIGRTMAX - signal.SIGRTMIN:
        return signal.SIGRTMIN + int(offset)
    try:
        return int(signal.Signals[f"SIG{word}"])
    except KeyError:
        raise InnkeeperError(f"invalid signal: {text}") from None
