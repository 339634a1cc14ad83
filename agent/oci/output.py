"""Output: tables for people, JSON for scripts, messages for container engines.

Messages go to a file of the engine's choice, as text or as one JSON object a line. An engine takes
any text on standard error for the reason of a failure. So only errors go there, as `error: ...`, in
addition to the log if there is one. Warnings go there only without a log, and only with --debug.
"""

import datetime
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

COLUMN_MIN = 12

# The characters that Go's encoder escapes although JSON does not need it, so that the text is safe
# in HTML.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table like those of Go's tabwriter, which scripts cut.

    A column is as wide as its content plus three, and at least COLUMN_MIN.
    """
    lines = [head, *rows]
    widths = [max(COLUMN_MIN, *[len(line[column]) + 3 for line in lines]) for column in range(len(head) - 1)] + [0]
    return "\n".join("".join([cell.ljust(width) for cell, width in zip(line, widths, strict=True)]) for line in lines)


def compact(value: object) -> str:
    """Return JSON as Go's encoder writes it, byte for byte: without spaces and with few escapes.

    Scripts match it as text.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def indented(value: object, indent: str) -> str:
    """Return the same JSON on several lines."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_ESCAPED)


def write_pid(path: str, pid: int) -> None:
    """Write a pid to a file, which is complete or does not exist."""
    fresh = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with open(fresh, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.replace(fresh, path)


@dataclass(slots=True)
class Log:
    """The destination of messages: the file `path`, or standard error if it is empty."""

    path: str = ""
    json: bool = False
    debug: bool = False
    _file: int = field(default=-1, repr=False)

    def warning(self, message: str) -> None:
        """Log that something was ignored which the caller may want to know."""
        if self.path or self.debug:
            self._write("warning", message)

    def warnings(self, messages: list[str]) -> None:
        """Log warnings, and empty the list."""
        while messages:
            self.warning(messages.pop(0))

    def error(self, message: str) -> None:
        """Log why the command fails. Also print it on standard error if the log is a file."""
        self._write("error", message)
        if self.path:
            print(f"error: {message}", file=sys.stderr, flush=True)

    def _write(self, level: str, message: str) -> None:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        if self.json:
            line = json.dumps({"level": level, "msg": message, "time": now})
        elif self.path:
            line = f"time={json.dumps(now)} level={level} msg={json.dumps(message)}"
        else:
            line = f"{level}: {message}"
        self._emit(os.fsencode(line) + b"\n")

    def _emit(self, line: bytes) -> None:
        if not self.path:
            os.write(2, line)
            return
        try:
            if self._file < 0:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.write(self._file, line)
        except OSError as error:
            os.write(2, os.fsencode(f"error: --log: {self.path}: {error.strerror}\n"))
