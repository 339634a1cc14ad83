"""The log of the agent: one JSON object per line on standard error.

Standard error is the console of the guest if the agent is PID 1. Keys and level tags are those of
Kata's agent, so that the same tools read both. All fields are strings.
"""

import os
import time
from _json import encode_basestring_ascii as _quote  # the json package imports re: too slow

from agent import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TAGS = {
    "fatal": "CRIT",
    "panic": "CRIT",
    "critical": "CRIT",
    "error": "ERRO",
    "warn": "WARN",
    "warning": "WARN",
    "info": "INFO",
    "debug": "DEBG",
    "trace": "TRCE",
}
_ORDER = ("CRIT", "ERRO", "WARN", "INFO", "DEBG", "TRCE")
_WRITE_MAX = 1024
"""Most bytes of one write(2)."""

_sink: "Callable[[bytes], None] | None" = None
_threshold = _ORDER.index("INFO")


def set_level(name: str) -> None:
    """Log messages of this level and of more severe ones.

    Raises KeyError for a name that is not in TAGS.
    """
    global _threshold
    _threshold = _ORDER.index(TAGS[name])


def line(tag: str, message: str, subsystem: str, fields: "dict[str, object]") -> bytes:
    """Return one line of the log, with its newline."""
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    pairs = {
        "msg": message,
        "level": tag,
        "ts": f"{stamp}.{now % 1_000_000_000:09d}Z",
        "name": "kata-agent",
        "source": "agent",
        "subsystem": subsystem,
        "pid": os.getpid(),
        "version": VERSION,
        **fields,
    }
    return ("{" + ",".join(f"{_quote(key)}:{_quote(str(value))}" for key, value in pairs.items()) + "}\n").encode()


def set_sink(sink: "Callable[[bytes], None]") -> None:
    """Pass lines to `sink`, which must not block, instead of standard error.

    Lines of a panic (CRIT) are written to both.
    """
    global _sink
    _sink = sink


def _write(tag: str, message: str, subsystem: str, fields: "dict[str, object]") -> None:
    if _ORDER.index(tag) > _threshold:
        return
    data = line(tag, message, subsystem, fields)
    if _sink is not None:
        _sink(data)
        if tag != "CRIT":
            return
    try:
        while data:
            data = data[os.write(2, data[:_WRITE_MAX]) :]
    except OSError:
        pass  # nothing can read the line, and that is no reason to fail


def debug(message: str, subsystem: str = "root", **fields: object) -> None:
    """Log a detail, for agent.log=debug."""
    _write("DEBG", message, subsystem, fields)


def info(message: str, subsystem: str = "root", **fields: object) -> None:
    """Log a step of normal operation."""
    _write("INFO", message, subsystem, fields)


def warn(message: str, subsystem: str = "root", **fields: object) -> None:
    """Log a problem after which the agent goes on."""
    _write("WARN", message, subsystem, fields)


def error(message: str, subsystem: str = "root", **fields: object) -> None:
    """Log a failure that is not reported to any client."""
    _write("ERRO", message, subsystem, fields)
