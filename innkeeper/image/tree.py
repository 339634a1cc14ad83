"""The tree of an image in memory: inodes with their names, layers laid over each other as overlayfs would show them.

Only headers live here; a file's bytes stay in the layer's tar and are copied once, into the block device.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAME_MAX = 255
PATH_MAX = 4096
SYMLINKS_MAX = 40


@dataclass(slots=True)
class Extent:
    """`length` bytes of a file at `offset`, found at `source_offset` of `source`; what no extent covers is zero."""

    offset: int
    length: int
    source: Path
    source_offset: int


@dataclass(slots=True, eq=False)
class Inode:
    """One inode; two names with the same object are hard links. `mode` has the type bits, as in stat(2)."""

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
    # Only in the tree of a single layer:
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
    """A directory that no layer described: root's, 0755."""
    return Inode(stat.S_IFDIR | 0o755, implied=implied)


def merge(lower: Inode, upper: Inode) -> Inode:
    """Lay the layer `upper` over the tree `lower` and return the result (both are consumed).

    As overlayfs: a directory over a directory merges, anything else hides; attributes are the upper's. A directory
    that the layer did not describe itself, only passed through, keeps the lower's attributes.
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
    """Make /etc/mtab a link to /proc/mounts, as docker does, unless it is a link already: df and others read it."""
    etc = lookup(root, b"/etc")
    if etc is None and b"etc" not in root.children:
        etc = root.children[b"etc"] = new_directory()
    if etc is None or not etc.is_dir:
        return  # nothing that could hold it: whoever runs the image is told when our own files are mounted
    known = etc.children.get(b"mtab")
    if known is None or not known.is_symlink:
        target = b"/proc/mounts"
        etc.children[b"mtab"] = Inode(stat.S_IFLNK | 0o777, target=target, size=len(target))


def split(path: bytes) -> list[bytes]:
    """The components of `path`, without empty ones and `.`; `..` is kept."""
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def lookup(root: Inode, path: bytes, *, follow_last: bool = True) -> Inode | None:
    """The inode at `path` inside `root`, as chroot(2) would resolve it: links and `..` never leave the tree."""
    trail = _resolve(root, path, follow_last)
    return None if trail is None else trail[-1][1]


def real_directory(root: Inode, path: bytes) -> bytes | None:
    """The path of the directory at `path` without links, or None when there is no directory."""
    trail = _resolve(root, path, True)
    if trail is None or not trail[-1][1].is_dir:
        return None
    return b"/" + b"/".join(name for name, _ in trail[1:])


def _resolve(root: Inode, path: bytes, follow_last: bool) -> list[tuple[bytes, Inode]] | None:
    """The names and inodes from the root down to `path`."""
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


def walk(root: Inode) -> Iterator[tuple[bytes, Inode, Inode]]:
    """Every name below `root` as (path, inode, directory it is in), in order; a hard link comes once a name."""
    pending: list[tuple[bytes, Inode]] = [(b"", root)]
    while pending:
        prefix, directory = pending.pop()
        below = []
        for name in sorted(directory.children):
            node = directory.children[name]
            path = prefix + b"/" + name
            yield path, node, directory
            if node.is_dir:
                below.append((path, node))
        pending.extend(reversed(below))


def read(node: Inode, limit: int) -> bytes | None:
    """The bytes of a regular file, or None when it is not one or is longer than `limit`."""
    if not node.is_file or node.size > limit:
        return None
    data = bytearray(node.size)
    for extent in node.extents:
        with extent.source.open("rb") as source:
            source.seek(extent.source_offset)
            data[extent.offset : extent.offset + extent.length] = source.read(extent.length)
    return bytes(data)
