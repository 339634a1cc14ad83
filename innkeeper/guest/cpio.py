"""Write an initramfs: a cpio archive in the format "newc".

The kernel's early-userspace/buffer-format describes it.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePath

_ALIGN = 4
_FOLDER, _FILE = 0o040000, 0o100000


def archive(files: Mapping[str, tuple[bytes, int]], folders: Iterable[str] = ()) -> bytes:
    """Return an archive of `files`, path -> (content, permissions), their folders and `folders`.

    Everything belongs to root, and there are no times, so equal files give an equal archive.
    """
    above = {str(parent) for path in files for parent in PurePath(path).parents} - {"."}
    entries = [(path, b"", _FOLDER | 0o755) for path in sorted({*above, *folders})]
    entries += [(path, content, _FILE | mode) for path, (content, mode) in sorted(files.items())]
    entries.append(("TRAILER!!!", b"", 0))
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))


def _entry(number: int, path: str, content: bytes, mode: int) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
