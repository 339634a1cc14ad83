"""The tree of an image in memory, with its layers merged as overlayfs would show them.

It holds only headers. The bytes of files stay in the layer's tar and are copied once, into the
block device.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path

NAME_MAX = 255
PATH_MAX = 4096
SYMLINKS_MAX = 40
"""Symbolic links that one lookup follows, as in Linux."""


@dataclass(slots=True)
class Extent:
    """A part of a file: `length` bytes at `offset`, stored at `source_offset` of `source`.

    Bytes that no extent covers are zero.
    """

    offset: int
    length: int
    source: Path
    source_offset: int


@dataclass(slots=True, eq=False)
class Inode:
    """One inode. Two names with the same object are hard links.

    `mode` includes the file type, as in stat(2).
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    rdev: tuple[int, int] = (0, 0)
    target: bytes = b""
    extents: list[Extent] = field(default_factory=list)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, "Inode"] = field(default_factory=dict)
    # Used only in the tree of a single layer:
    whiteouts: set[bytes] = field(default_factory=set)
    opaque: bool = False
    implied: bool = False

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


def new_directory(*, implied: bool = True) -> Inode:
    """Return a directory that no layer described: owned by root, mode 0755."""
    return Inode(stat.S_IFDIR | 0o755, implied=implied)


def merge(lower: Inode, upper: Inode) -> Inode:
    """Merge the layer `upper` into the tree `lower` and return the result. Both are consumed.

    As in overlayfs, a directory over a directory merges, anything else hides, and attributes are
    the upper's. A directory that the layer only passes through, without describing it, keeps the
    attributes of the lower one.
    """
    pending = [(lower, upper)]
    while pending:
        below, above = pending.pop()
        if above.opaque:
            below.children.clear()
        for name in above.whiteouts:
            below.children.pop(name, None)
        if not above.implied:
            below.mode, below.uid, below.gid = above.mode, above.uid, above.gid
            below.mtime_ns, below.xattrs = above.mtime_ns, above.xattrs
        for name, node in above.children.items():
            hidden = below.children.get(name)
            if node.is_dir and hidden is not None and hidden.is_dir:
                pending.append((hidden, node))
            else:
                below.children[name] = node
    return lower


def link_mtab(root: Inode) -> None:
    """Make /etc/mtab a link to /proc/mounts, as docker does, unless it is a link already.

    df and other programs read it.
    """
    etc = lookup(root, b"/etc")
    if etc is None and b"etc" not in root.children:
        etc = root.children[b"etc"] = new_directory()
    if etc is None or not etc.is_dir:
        return  # /etc is not a directory: mounting our own files there will report that
    known = etc.children.get(b"mtab")
    if known is None or not known.is_symlink:
        target = b"/proc/mounts"
        etc.children[b"mtab"] = Inode(stat.S_IFLNK | 0o777, target=target, size=len(target))


def split(path: bytes) -> list[bytes]:
    """Return the components of `path`, without empty ones and `.`. `..` is kept."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def lookup(root: Inode, path: bytes, *, follow_last: bool = True) -> Inode | None:
    """Return the inode at `path` inside `root`, or None.

    Resolves as chroot(2) would: links and `..` never leave the tree.
    """
    trail = _resolve(root, path, follow_last)
    return None if trail is None else trail[-1][1]


def real_directory(root: Inode, path: bytes) -> bytes | None:
    """Return the path of the directory at `path` with links resolved, or None if there is none."""
    trail = _resolve(root, path, True)
    if trail is None or not trail[-1][1].is_dir:
        return None
    return b"/" + b"/".join(name for name, _ in trail[1:])


def _resolve(root: Inode, path: bytes, follow_last: bool) -> list[tuple[bytes, Inode]] | None:
    """Return the names and inodes from the root down to `path`, or None."""
    trail = [(b"", root)]
    todo = split(path)[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == b"..":
            if len(trail) > 1:
                trail.pop()
            continue
        node = trail[-1][1].children.get(part)
        if node is None:
            return None
        if node.is_symlink and (todo or follow_last):
            links += 1
            if links > SYMLINKS_MAX:
                return None
            if node.target.startswith(b"/"):
                del trail[1:]
            todo.extend(split(node.target)[::-1])
            continue
        if todo and not node.is_dir:
            return None
        trail.append((part, node))
    return trail


def read(node: Inode, limit: int) -> bytes | None:
    """Return the bytes of a regular file.

    Returns None if it is not one, or if it is longer than `limit` bytes.
    """
    if not node.is_file or node.size > limit:
        return None
    data = bytearray(node.size)
    for extent in node.extents:
        with extent.source.open("rb") as source:
            source.seek(extent.source_offset)
            data[extent.offset : extent.offset + extent.length] = source.read(extent.length)
    return bytes(data)
