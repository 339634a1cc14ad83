"""Read the entries of an untrusted tar: tarfile, hardened against hostile headers.

tarfile reads a header of any length into memory, goes backwards for a negative size (and then loops
for ever), recurses once for each header that describes the next one, and lets exceptions of int()
and indexing escape. Here all of that is a ReadError.
"""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

HEADER_MAX = 1 << 20
"""Bytes of the largest header that describes the next one (a long name, pax records).

The same limit as in docker's reader.
"""
_DESCRIBING = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_Result = TypeVar("_Result")


class _StrictHeader(tarfile.TarInfo):
    """A header that raises ReadError if it is broken.

    tarfile takes a broken header in the middle for the end of the archive. A layer must not lose
    files that way.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictHeader":
        """Parse one header block. Raises tarfile.ReadError."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"broken header: {error}") from error
        if header.size < 0:
            raise tarfile.ReadError("broken header: a size below zero")
        if header.type in _DESCRIBING and header.size > HEADER_MAX:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def open_tar(path: Path) -> tarfile.TarFile:
    """Open an uncompressed tar. Raises tarfile.ReadError, OSError."""
    return _read(lambda: tarfile.open(path, "r:", tarinfo=_StrictHeader, encoding="utf-8", errors="surrogateescape"))


def entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the archive's entries, without keeping them in memory. Raises tarfile.ReadError."""
    while (member := _read(archive.next)) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header
        _check(member)
        yield member


def sparse_map(member: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Return (offset, length) of each stored part of a sparse file.

    Returns None for an ordinary file.
    """
    return getattr(member, "sparse", None)


def _check(member: tarfile.TarInfo) -> None:
    """Raise ReadError if an entry has an impossible size or sparse map.

    Both may come from records outside of the header, which `frombuf` does not see. The check comes
    before the entry is used.
    """
    if member.size < 0:
        raise tarfile.ReadError(f"{member.name}: a size below zero")
    end = 0
    for offset, length in sparse_map(member) or ():
        if length == 0:
            continue  # GNU tar pads its header with empty parts
        if offset < end or length < 0 or offset + length > member.size:
            raise tarfile.ReadError(f"{member.name}: parts that overlap, or lie outside of the file")
        end = offset + length


def _read(step: Callable[[], _Result]) -> _Result:
    """Call `step`. Turn the exceptions that a hostile header causes into ReadError."""
    try:
        return step()
    except (ValueError, IndexError, OverflowError, RecursionError) as error:
        raise tarfile.ReadError(f"broken header: {error}") from error
