"""Read one layer (an uncompressed tar) into a tree: names, whiteouts, links, attributes.

See OCI image-spec 1.1 `layer.md`. Nothing is unpacked, so a layer cannot reach files of the host.
Names that would leave the image are refused.
"""

import re
import stat
import tarfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from innkeeper import progress
from innkeeper.errors import InnkeeperError
from innkeeper.image.erofs import is_stored_xattr
from innkeeper.image.tar import entries, open_tar, sparse_map
from innkeeper.image.tree import NAME_MAX, PATH_MAX, Extent, Inode, lookup, new_directory, split

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_METADATA = b".wh..wh."
XATTR = "SCHILY.xattr."
# overlayfs would obey these attributes in the guest's lower layer. No image may control it.
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")
ID_MAX = 2**32 - 2
_SECONDS = re.compile(r"-?[0-9]{1,12}(\.[0-9]*)?")

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def read_layer(path: Path, lower: Inode) -> Inode:
    """Read the tar at `path` into a tree.

    `lower` is the merged tree of the layers below, which hard links may point to. Raises
    InnkeeperError for a broken archive, a name or link outside the image, or an unknown kind of
    entry.
    """
    reader = _Reader(path, lower)
    try:
        for member in _members(path):
            reader.add(member)
    except (tarfile.TarError, EOFError) as error:
        raise InnkeeperError(f"layer {path.name}: {error}", hint="the image is damaged; build or pull it again") from error
    return reader.root


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of the tar. Raises tarfile.ReadError if the file ends early."""
    size = path.stat().st_size
    if size == 0:
        return  # a layer of 0 bytes is empty: docker has run such images since 1.10
    with open_tar(path) as archive:
        for member in entries(archive):
            stored = sum(length for _, length in sparse) if (sparse := sparse_map(member)) is not None else member.size
            if member.isreg() and member.offset_data + stored > size:
                raise tarfile.ReadError(f"{member.name}: archive ends inside the file")
            yield member
        _check_end(path, archive.offset)


def _check_end(path: Path, offset: int) -> None:
    """Raise ReadError if a single block of zeros is followed by more data.

    Two such blocks are the end of a tar. tarfile stops at the first, and would silently drop the
    rest of the layer. `offset` is where it stopped: at the first block of zeros, or at the end of
    the file.
    """
    with path.open("rb") as file:
        file.seek(offset)
        first, second = file.read(tarfile.BLOCKSIZE), file.read(tarfile.BLOCKSIZE)
    if second.strip(b"\0") or first.strip(b"\0"):
        raise tarfile.ReadError("an entry behind a single block of zeros")


class _Reader:
    """The tree of one layer while it is read, entry by entry.

    Whiteouts are kept apart from the layer's own entries, as `whiteouts` and `opaque` of a
    directory, because they hide only the layers below (see `tree.merge`). A tar may list a whiteout
    before or after the entry of the same name, and the result is the same.
    """

    def __init__(self, path: Path, lower: Inode) -> None:
        self.path = path
        self.lower = lower
        self.root = new_directory()
        self.seen_xattrs: set[bytes] = set()

    def refuse(self, name: bytes, why: str) -> InnkeeperError:
        """Return the error for the entry `name`."""
        return InnkeeperError(f"layer {self.path.name}: {name.decode(errors='replace')}: {why}")

    def add(self, member: tarfile.TarInfo) -> None:
        """Add one entry of the tar to the tree."""
        full = _bytes(member.name)
        parts = _normal(full)
        if parts is None:
            raise self.refuse(full, "the name leaves the image with ..")
        self.check_name(full, parts)
        if not parts:
            if not member.isdir():
                raise self.refuse(full, "the root is not a directory")
            self.describe(self.root, member, full)
            return
        name = parts[-1]
        if name == OPAQUE:
            self.parent(parts, full).opaque = True
        elif name.startswith(AUFS_METADATA):
            return  # aufs kept its own state under these names, and no runtime unpacks them
        elif name.startswith(WHITEOUT):
            self.whiteout(self.parent(parts, full), name[len(WHITEOUT) :], full)
        else:
            self.place(self.parent(parts, full), name, member, full)

    def check_name(self, full: bytes, parts: list[bytes]) -> None:
        """Raise InnkeeperError for a name that Linux does not allow."""
        if b"\0" in full or len(full) >= PATH_MAX or any(len(part) > NAME_MAX for part in parts):
            raise self.refuse(full, "the name is longer than Linux allows or holds a NUL")

    def parent(self, parts: list[bytes], full: bytes) -> Inode:
        """Return the directory that the entry goes to, and create missing ones.

        Links are followed inside this layer only, because overlayfs' layers are unpacked
        separately.
        """
        directory = self.root
        for index, part in enumerate(parts[:-1]):
            found = directory.children.get(part)
            if found is not None and found.is_symlink:
                found = lookup(self.root, b"/".join(parts[: index + 1]))
                if found is None or not found.is_dir:
                    raise self.refuse(full, "a parent is a symbolic link to nothing in this layer")
            elif found is None:
                found = directory.children[part] = new_directory()
                # Removed, then created again: the old content stays hidden.
                found.opaque = part in directory.whiteouts
                directory.whiteouts.discard(part)
            elif not found.is_dir:
                raise self.refuse(full, "a parent is not a directory")
            directory = found
        return directory

    def whiteout(self, directory: Inode, name: bytes, full: bytes) -> None:
        """Hide `name` of the layers below.

        If this layer has a directory of that name, the directory becomes opaque instead.
        """
        if name in (b"", b".", b".."):
            raise self.refuse(full, "a whiteout of nothing")
        # A whiteout hides the layers below, wherever in this layer it stands.
        again = directory.children.get(name)
        if again is None:
            directory.whiteouts.add(name)
        elif again.is_dir:
            again.opaque = True

    def place(self, directory: Inode, name: bytes, member: tarfile.TarInfo, full: bytes) -> None:
        """Put the entry `name` into `directory`, in place of an earlier one of this layer.

        A directory that is listed twice keeps its children.
        """
        old = directory.children.get(name)
        if member.islnk():
            node = self.link_target(member, full)
        elif member.type not in _KINDS:
            raise self.refuse(full, f"unknown kind of entry {member.type!r}")
        elif member.ischr() and (member.devmajor, member.devminor) == (0, 0):
            # The format in which overlayfs itself stores a whiteout.
            directory.children.pop(name, None)
            self.whiteout(directory, name, full)
            return
        else:
            node = old if member.isdir() and old is not None and old.is_dir else Inode(_KINDS[member.type])
            self.describe(node, member, full)
        if node.is_dir and node is not old and name in directory.whiteouts:
            node.opaque = True
        directory.children[name] = node
        directory.whiteouts.discard(name)

    def link_target(self, member: tarfile.TarInfo, full: bytes) -> Inode:
        """Return the inode that a hard link points to, in this layer or in one below."""
        written = _bytes(member.linkname)
        parts = _normal(written)
        if parts is None:
            raise self.refuse(full, "a hard link that leaves the image")
        target = b"/".join(parts)
        node = lookup(self.root, target, follow_last=False) or lookup(self.lower, target, follow_last=False)
        if node is None or node.is_dir:
            raise self.refuse(full, f"a hard link to {target.decode(errors='replace')}, which is not a file in the image")
        return node

    def describe(self, node: Inode, member: tarfile.TarInfo, full: bytes) -> None:
        """Set the attributes of `node` from the entry."""
        if not (0 <= member.uid <= ID_MAX and 0 <= member.gid <= ID_MAX):
            raise self.refuse(full, f"owner {member.uid}:{member.gid} is out of range")
        node.mode = _KINDS[member.type] | (member.mode & 0o7777)
        node.uid, node.gid = member.uid, member.gid
        node.mtime_ns = _mtime_ns(member)
        node.xattrs = self.xattrs(member, full)
        node.implied = False
        if node.is_symlink:
            node.mode = stat.S_IFLNK | 0o777
            node.target = _bytes(member.linkname)
            if not 0 < len(node.target) < PATH_MAX or b"\0" in node.target:
                raise self.refuse(full, "a symbolic link with no or too long a target")
            node.size = len(node.target)
        elif member.ischr() or member.isblk():
            node.rdev = (member.devmajor, member.devminor)
        elif node.is_file:
            node.size = member.size
            node.extents = _extents(member, self.path)

    def xattrs(self, member: tarfile.TarInfo, full: bytes) -> dict[bytes, bytes]:
        """Return the extended attributes that the image may set and erofs can store."""
        found = {_bytes(key[len(XATTR) :]): _bytes(value) for key, value in member.pax_headers.items() if key.startswith(XATTR)}
        for name in [name for name in found if name.startswith(OVERLAY_XATTRS)]:
            progress.warn(f"{full.decode(errors='replace')}: attribute {name.decode(errors='replace')} of the image is left out")
            del found[name]
        for name in [name for name in found if not is_stored_xattr(name)]:
            self.left_out(name, full)
            del found[name]
        return found

    def left_out(self, name: bytes, full: bytes) -> None:
        """Warn about an attribute that Linux cannot store, such as macOS' com.apple.*.

        Only once per name, even if many files have it.
        """
        if name not in self.seen_xattrs:
            self.seen_xattrs.add(name)
            progress.warn(f"{full.decode(errors='replace')}: attribute {name.decode(errors='replace')} has no place on Linux, left out")


def _normal(name: bytes) -> list[bytes] | None:
    """Return the components of `name`, with `..` resolved lexically as docker does.

    Returns None if the name leaves the image.
    """
    parts: list[bytes] = []
    for part in split(name):
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return None
    return parts


def _extents(member: tarfile.TarInfo, source: Path) -> list[Extent]:
    """Return where the bytes of a file are in the layer's tar."""
    sparse = sparse_map(member)
    if sparse is None:
        return [Extent(0, member.size, source, member.offset_data)] if member.size else []
    extents, position = [], member.offset_data
    for offset, length in sparse:
        if length:
            extents.append(Extent(offset, length, source, position))
            position += length
    return extents


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Return the exact time of modification: tarfile's own float loses nanoseconds."""
    text = member.pax_headers.get("mtime")
    if not text and isinstance(member.mtime, int):
        return member.mtime * 10**9
    if not text or _SECONDS.fullmatch(text) is None:
        raise tarfile.ReadError(f"{member.name}: time {text and text[:40]!r}")
    return int(Decimal(text).scaleb(9))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
