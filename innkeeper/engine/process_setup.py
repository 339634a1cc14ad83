"""What each process of ours does first: the command line, and a container's monitor."""

import os
import signal
import sys
from types import FrameType

from innkeeper.errors import Interrupted


def raise_interrupted() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise Interrupted, unless this process ignores them."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


def open_standard_streams() -> None:
    """Open /dev/null as each standard stream that the caller has closed.

    Otherwise the next file to be opened would get the stream's number: output would go into that
    file, and input would come from it. Go's runtime does the same for docker.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - they are this process's for as long as it lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
