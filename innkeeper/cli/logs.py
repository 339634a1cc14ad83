"""The command `logs`: print the output of a detached container."""

import json as codec
import os
from pathlib import Path
from typing import Any

from innkeeper.cli import flags
from innkeeper.engine import logfile, streams
from innkeeper.errors import InnkeeperError


def logs(name: str, follow: bool = False, tail: int | None = None, timestamps: bool = False, json: bool = False) -> None:
    """Print the output of a container that was started with -d.

    Its stdout goes to stdout, its stderr to stderr.
    """
    from innkeeper.engine import records

    container = records.lookup(name)
    path = container.folder / records.LOG
    if not path.exists():
        raise InnkeeperError(f"container {container.name} has no log: it ran in the foreground", hint="containers started with -d have one")
    skip = _lines_before_tail(path, tail) if tail is not None else 0
    printer = _Printer(timestamps, skip)
    for entry in logfile.entries(path, container.still_alive if follow else None):
        if json:
            os.write(1, codec.dumps(entry, ensure_ascii=False).encode() + b"\n")
        else:
            printer.write(entry)


def _lines_before_tail(path: Path, tail: int) -> int:
    """Return how many lines to skip so that the last `tail` remain.

    A last line without a line end counts as a line.
    """
    lines, last = 0, b"\n"
    for entry in logfile.entries(path):
        data = logfile.payload(entry)
        lines += data.count(b"\n")
        last = data[-1:] or last
    return max(0, lines + (last != b"\n") - tail)


class _Printer:
    """Writer of log entries to our own streams.

    It skips the first `skip` lines, and puts the time before each line if asked.
    """

    def __init__(self, timestamps: bool, skip: int) -> None:
        self._timestamps = timestamps
        self._skip = skip
        self._at_start = {"stdout": True, "stderr": True}

    def write(self, entry: dict[str, Any]) -> None:
        """Write one entry to stdout or stderr, whichever it came from."""
        data = logfile.payload(entry)
        while self._skip and data:
            _, newline, data = data.partition(b"\n")
            self._skip -= bool(newline)
        if self._timestamps and data:
            data = self._stamp(data, entry["time"].encode() + b" ", entry["stream"])
        streams.to_descriptor(2 if entry["stream"] == "stderr" else 1)(data)

    def _stamp(self, data: bytes, time: bytes, stream: str) -> bytes:
        """Return `data` with the time before each line that starts in it.

        An entry may end in the middle of a line. The next one of the same stream then continues it
        without a time.
        """
        ends = data.endswith(b"\n")
        body = data[:-1] if ends else data
        stamped = (time if self._at_start[stream] else b"") + body.replace(b"\n", b"\n" + time) + (b"\n" if ends else b"")
        self._at_start[stream] = ends
        return stamped


COMMAND = flags.Command(
    name="logs",
    run=logs,
    arguments=(flags.container(),),
    flags=(
        flags.switch("follow", "-f", "--follow", help="Go on until the container ends."),
        flags.single("tail", "-n", "--tail", kind=int, minimum=0, help="Only the last N lines of what there is."),
        flags.switch("timestamps", "-t", "--timestamps", help="Put the time before each line."),
        flags.JSON,
    ),
    examples=("logs web", "logs -f --tail 20 web", "logs --json web"),
)
