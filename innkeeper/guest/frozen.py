"""Read which modules a frozen program holds: PyInstaller's archives inside the executable.

The executable ends with an archive, and the archive with a record that says where its table is. One
entry of the table is a second archive with the compressed modules (PyInstaller,
`archive/readers.py`).
"""

import hashlib
import marshal
import struct
from pathlib import Path

from innkeeper.errors import InnkeeperError

_COOKIE = struct.Struct("!8sIIII64s")
_MAGIC = b"MEI\014\013\012\013\016"
_ENTRY = struct.Struct("!IIIIBc")
_MODULES = b"z"
"""Type of the entry with the second archive."""


def modules(program: Path) -> dict[str, str]:
    """Return the modules of a frozen program: name -> sha256 of the compressed code.

    Equal code has equal hashes, if the same Python compressed it. Raises InnkeeperError if the file
    is no frozen program.
    """
    data = program.read_bytes()
    try:
        archive = _modules_archive(data)
        (at,) = struct.unpack_from("!I", archive, 8)
        table = marshal.loads(archive[at:])
        return {name: hashlib.sha256(archive[start : start + size]).hexdigest() for name, (_, start, size) in sorted(table)}
    except (struct.error, ValueError, EOFError, TypeError):
        raise InnkeeperError(f"{program}: not a frozen program") from None


def _modules_archive(data: bytes) -> bytes:
    end = data.rindex(_MAGIC)
    _, length, table, size, _, _ = _COOKIE.unpack_from(data, end)
    start = end + _COOKIE.size - length
    at = start + table
    while at < start + table + size:
        entry, offset, stored, _, _, kind = _ENTRY.unpack_from(data, at)
        if kind == _MODULES:
            return data[start + offset : start + offset + stored]
        at += entry
    raise ValueError("no modules")
