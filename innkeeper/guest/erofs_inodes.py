"""Read modes and owners out of an erofs image.

The format is described in linux/fs/erofs/erofs_fs.h. fsck.erofs(1) of Debian 12 unpacks a file
before it gives it away, which drops setuid and setgid. And only root can give files away. The image
has both as they are.
"""

import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError

_SUPER, _MAGIC = 1024, 0xE0F5E1E2
_SLOT = 32
"""Bytes between two inode numbers."""
_DIRENT = struct.Struct("<QHBx")
_FLAT, _INLINE = 0, 2
"""Layouts of a directory: whole blocks, and whole blocks with the rest after the inode."""


@dataclass(frozen=True)
class Inode:
    """Mode with the file's type, owner and group."""

    mode: int
    uid: int
    gid: int


def read_inodes(image: Path) -> dict[str, Inode]:
    """Return the inodes of an image by path. Raises InnkeeperError if it is not an erofs image."""
    data = image.read_bytes()
    try:
        (magic,) = struct.unpack_from("<I", data, _SUPER)
        if magic != _MAGIC:
            raise InnkeeperError(f"{image}: not an erofs image")
        block = 1 << data[_SUPER + 12]
        (root,) = struct.unpack_from("<H", data, _SUPER + 14)
        (meta,) = struct.unpack_from("<I", data, _SUPER + 40)
        return _Reader(data, block, meta * block).below(root, "")
    except (struct.error, IndexError, UnicodeDecodeError):
        raise InnkeeperError(f"{image}: not an erofs image") from None


class _Reader:
    def __init__(self, data: bytes, block: int, inodes: int) -> None:
        self.data = data
        self.block = block
        self.inodes = inodes

    def below(self, number: int, path: str) -> dict[str, Inode]:
        found: dict[str, Inode] = {}
        for name, child in self._names(number):
            inode = self._inode(child)[0]
            found[f"{path}{name}"] = inode
            if stat.S_ISDIR(inode.mode):
                found |= self.below(child, f"{path}{name}/")
        return found

    def _inode(self, number: int) -> tuple[Inode, bytes]:
        """Return an inode and the content of what it describes, if that is not compressed."""
        at = self.inodes + number * _SLOT
        form, xattrs, mode = struct.unpack_from("<HHH", self.data, at)
        if form & 1:
            size, start, _, uid, gid = struct.unpack_from("<QIIII", self.data, at + 8)
        else:
            size, _, start, _, uid, gid = struct.unpack_from("<IIIIHH", self.data, at + 8)
        inline = at + (64 if form & 1 else 32) + (12 + 4 * (xattrs - 1) if xattrs else 0)
        layout = form >> 1 & 7
        whole = size // self.block * self.block if layout == _INLINE else size if layout == _FLAT else 0
        rest = size - whole if layout == _INLINE else 0
        content = self.data[start * self.block : start * self.block + whole] + self.data[inline : inline + rest]
        return Inode(mode, uid, gid), content

    def _names(self, number: int) -> list[tuple[str, int]]:
        """Return names and inode numbers of a directory.

        Each block has first the entries, then their names.
        """
        content = self._inode(number)[1]
        found: list[tuple[str, int]] = []
        for start in range(0, len(content), self.block):
            part = content[start : start + self.block]
            (_, first, _) = _DIRENT.unpack_from(part, 0)
            entries = [_DIRENT.unpack_from(part, at) for at in range(0, first, _DIRENT.size)]
            ends = [entry[1] for entry in entries[1:]] + [len(part)]
            for (child, name, _), end in zip(entries, ends, strict=True):
                found.append((part[name:end].rstrip(b"\0").decode(), child))
        return [(name, child) for name, child in found if name not in (".", "..")]
