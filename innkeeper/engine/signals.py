"""Signals by number or name, as kill(1) and docker accept them, and as exceptions."""

import signal
from types import FrameType

from innkeeper.errors import InnkeeperError, Interrupted


def raise_interrupted() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise Interrupted, unless this process ignores them."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


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
