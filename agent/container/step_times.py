"""Where a container's time goes: marks of the parent and of its child on one clock.

The marks are in memory that both share. Off unless `record_to` was called, as `innkeeper bench
--steps` has the agent do. A mark then costs one look at a name. For one container at a time: the
marks of several would mix.
"""

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

NAME_BYTES = 48
CAPACITY = 128
_ENTRY = NAME_BYTES + 8

_shared: "mmap.mmap | None" = None
_path = ""


def record_to(path: str) -> None:
    """Keep marks from now on, and append those of each container to the file `path`.

    One line per container: a JSON list of [name, nanoseconds since the previous mark].
    """
    global _shared, _path
    import mmap

    _shared, _path = mmap.mmap(-1, 8 + CAPACITY * _ENTRY), path


def mark(name: str) -> None:
    """Record that the step `name` has just ended."""
    if _shared is None:
        return
    count = int.from_bytes(_shared[:8], "little")
    if count < CAPACITY:
        offset = 8 + count * _ENTRY
        text = name.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")
        _shared[offset : offset + _ENTRY] = text + time.monotonic_ns().to_bytes(8, "little")
        _shared[:8] = (count + 1).to_bytes(8, "little")


def finished() -> None:
    """Write the marks of a container that is gone, and forget them."""
    if _shared is None:
        return
    import itertools
    import json

    marks = []
    for offset in range(8, 8 + int.from_bytes(_shared[:8], "little") * _ENTRY, _ENTRY):
        name = _shared[offset : offset + NAME_BYTES].rstrip(b"\0").decode()
        marks.append((name, int.from_bytes(_shared[offset + NAME_BYTES : offset + _ENTRY], "little")))
    _shared[:8] = bytes(8)
    steps = [[name, when - before] for (_, before), (name, when) in itertools.pairwise(marks)]
    with open(_path, "a", encoding="utf-8") as file:
        file.write(json.dumps(steps) + os.linesep)
