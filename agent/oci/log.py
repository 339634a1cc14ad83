"""Warnings and errors as container engines read them: in a file of their choice, as text or as one JSON object a line.

An engine takes any text on standard error for the reason of a failure. So errors alone go there, as `error: ...`, beside the log where
there is one; warnings only where there is no log and --debug asks for them.
"""

import datetime
import json
import os
import sys
from dataclasses import dataclass, field


@dataclass(slots=True)
class Log:
    """Where messages go: `path`, or standard error where it is empty."""

    path: str = ""
    json: bool = False
    debug_too: bool = False
    _file: int = field(default=-1, repr=False)

    def debug(self, message: str) -> None:
        """Detail for whoever asked for it."""
        if self.debug_too:
            self._write("debug", message)

    def warning(self, message: str) -> None:
        """Something was passed over that the caller may want to know."""
        if self.path or self.debug_too:
            self._write("warning", message)

    def error(self, message: str) -> None:
        """Why the command fails; also on standard error when the log is elsewhere."""
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
