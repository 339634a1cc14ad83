"""Lines for containerd's log, written to the fifo `log` of the bundle in the format of logrus."""

import os
import time
from pathlib import Path

_descriptor = -1


def open_fifo(bundle: Path) -> None:
    """Write to containerd's log from now on. Without a fifo there, lines are dropped.

    Opened for reading too, a fifo never blocks and never breaks, whether containerd runs or not.
    """
    global _descriptor
    try:
        _descriptor = os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        _descriptor = -1


def info(message: str) -> None:
    """Log what happened."""
    _line("info", message)


def error(message: str) -> None:
    """Log a failure that no answer carries."""
    _line("error", message)


def _line(level: str, message: str) -> None:
    if _descriptor < 0:
        return
    text = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        os.write(_descriptor, f'time="{now}" level={level} msg="{text}"\n'.encode())
    except OSError:
        pass  # the fifo is full, and nobody reads it
