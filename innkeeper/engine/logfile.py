"""The log of a detached container, one JSON object per line.

Each has `time` (RFC 3339), `stream`, and either `data` or, if the bytes are not UTF-8, `base64`.
The pieces of a stream, concatenated in order, are its exact bytes.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class LogWriter:
    """Writer that appends pieces of streams to the log at `path`. Several threads may use it."""

    def __init__(self, path: Path) -> None:
        import threading

        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def stream(self, name: str) -> Callable[[bytes], None]:
        """Return a function that appends bytes to the log as stream `name`."""

        def write(data: bytes) -> None:
            entry: dict[str, Any] = {"time": rfc3339(time.time()), "stream": name}
            try:
                entry["data"] = data.decode()
            except UnicodeDecodeError:
                import base64

                entry["base64"] = base64.b64encode(data).decode()
            line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
            with self._lock:
                self._file.write(line)

        return write

    def close(self) -> None:
        """Close the file. Later writes are errors."""
        self._file.close()


def entries(path: Path, follow: Callable[[], bool] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the log's entries in order. With `follow`, wait for more as long as it returns True."""
    pending = b""
    with path.open("rb") as file:
        while True:
            # Asked before the read, so that what the container wrote just before it ended is still
            # read.
            alive = follow is not None and follow()
            while data := file.read(1 << 20):
                *lines, pending = (pending + data).split(b"\n")
                yield from map(json.loads, lines)
            if not alive:
                return
            time.sleep(0.1)


def payload(entry: dict[str, Any]) -> bytes:
    """Return the bytes of one entry."""
    if "base64" not in entry:
        return str(entry["data"]).encode()
    import base64

    return base64.b64decode(entry["base64"])


def rfc3339(at: float) -> str:
    """Return a time in seconds since the epoch in RFC 3339 format, in UTC with microseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}Z"
