"""Write a tree as an erofs image: uncompressed, extended inodes, small tails inline.

On-disk format: linux/fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. The same tree
always gives the same bits.

mkfs.erofs is not used, for two reasons. It needs an unpacked tree, which an ordinary user cannot
make (owners, devices), and older versions cannot store everything in the tree.

The layout is superblock, inodes, data. All places are known before the first byte is written:
`_collect` numbers the inodes, `_place_meta` gives each record an offset, `_place_data` gives the
rest of each file its blocks.
"""

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.image.tree import Inode

BLOCK = 4096
SUPER_OFFSET = 1024
SLOT = 32  # an inode's number (nid) is its offset in units of this
FIRST_META = 1152  # after the superblock
MAGIC = 0xE0F5E1E2
COMPAT_MTIME = 2
FLAT_PLAIN, FLAT_INLINE = 0, 2
EXTENDED = 1
INODE = struct.Struct("<HHHHQIIIIQII16x")
DIRENT = struct.Struct("<QHBx")
SUPER = struct.Struct("<IIIBBHQQIIII16s16sI44x")
BUFFER_SIZE = 128 << 10
# A longer tail of a file gets a block of its own, so that inodes stay close together.
INLINE_MAX = 1024
BLOCKS_MAX = 2**32 - 1

_ZEROS = bytes(BUFFER_SIZE)
_FILE_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6, stat.S_IFLNK: 7}
_XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)


@dataclass(slots=True)
class _Placed:
    """An inode and its location in the image.

    `meta` is the byte offset of its record, `block` the number of the first block of its data.
    """

    node: Inode
    parent: Inode
    number: int
    xattrs: bytes
    nlink: int
    size: int
    inline: int = 0
    meta: int = 0
    block: int = 0

    @property
    def nid(self) -> int:
        return self.meta // SLOT


def write_erofs(root: Inode, image: Path, uuid: bytes) -> None:
    """Write the tree below `root` to the new file `image`. `uuid` is 16 bytes.

    Raises InnkeeperError for content that erofs cannot store, and OSError.
    """
    placed = _collect(root)
    data_start = _place_meta(placed)
    blocks = _place_data(placed, data_start)
    with image.open("xb", buffering=0) as out:
        out.truncate(blocks * BLOCK)
        _write_super(out.fileno(), placed, root, blocks, uuid)
        sources = _Sources()
        try:
            for item in placed.values():
                _write_inode(out.fileno(), item, placed, sources)
        finally:
            sources.close()
        os.fsync(out.fileno())


def _collect(root: Inode) -> dict[int, _Placed]:
    """Return every inode once, the root first, keyed by id(), with link counts and sizes."""
    placed: dict[int, _Placed] = {}
    pending = [(root, root)]
    while pending:
        node, parent = pending.pop()
        if (known := placed.get(id(node))) is not None:
            known.nlink += 1
            continue
        nlink, size = 1, node.size
        if node.is_dir:
            nlink = 2 + sum(child.is_dir for child in node.children.values())
            size = sum(_directory_sizes(node))
            pending.extend((node.children[name], node) for name in sorted(node.children, reverse=True))
        placed[id(node)] = _Placed(
            node=node, parent=parent, number=len(placed) + 1, xattrs=_xattr_body(node.xattrs), nlink=nlink, size=size
        )
    return placed


def _place_meta(placed: dict[int, _Placed]) -> int:
    """Set the offset of each inode's record. Return the number of the first block after them."""
    position = FIRST_META
    for item in placed.values():
        head = INODE.size + len(item.xattrs)
        tail = item.size % BLOCK
        limit = INLINE_MAX if item.node.is_file else BLOCK
        if 0 < tail <= limit and head + tail <= BLOCK:
            item.inline = tail
            # Inline data must not cross a block boundary.
            if position % BLOCK + head + tail > BLOCK:
                position = _up(position, BLOCK)
        item.meta = position
        position = _up(position + head + item.inline, SLOT)
    return _up(position, BLOCK) // BLOCK


def _place_data(placed: dict[int, _Placed], block: int) -> int:
    """Set the first block of each inode's data. Return the number of blocks of the image."""
    for item in placed.values():
        length = item.size - item.inline
        if length and (item.node.is_file or item.node.is_dir or item.node.is_symlink):
            item.block = block
            block += _up(length, BLOCK) // BLOCK
    if block > BLOCKS_MAX:
        raise InnkeeperError(f"the image holds {block * BLOCK} bytes, more than an erofs device can")
    return block


def _write_super(out: int, placed: dict[int, _Placed], root: Inode, blocks: int, uuid: bytes) -> None:
    top = placed[id(root)]
    record = SUPER.pack(MAGIC, 0, COMPAT_MTIME, 12, 0, top.nid, len(placed), 0, 0, blocks, 0, 0, uuid, b"", 0)
    os.pwrite(out, record, SUPER_OFFSET)


def _write_inode(out: int, item: _Placed, placed: dict[int, _Placed], sources: "_Sources") -> None:
    """Write an inode's record and extended attributes, then its data.

    The part of the data that fills whole blocks goes to `item.block`, and an inline tail directly
    after the attributes.
    """
    node = item.node
    layout = FLAT_INLINE if item.inline else FLAT_PLAIN
    where = _encode_device(node.rdev) if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode) else item.block
    seconds, nanoseconds = divmod(node.mtime_ns, 10**9)
    icount = (len(item.xattrs) - 12) // 4 + 1 if item.xattrs else 0
    record = INODE.pack(
        EXTENDED | layout << 1, icount, node.mode, 0, item.size, where, item.number, node.uid, node.gid,
        seconds % 2**64, nanoseconds, item.nlink,
    )  # fmt: skip
    head = record + item.xattrs
    os.pwrite(out, head, item.meta)
    at_tail = item.meta + len(head)
    whole = item.size - item.inline
    if node.is_file:
        sources.copy(node, 0, whole, out, item.block * BLOCK)
        sources.copy(node, whole, item.size, out, at_tail)
    elif node.is_dir or node.is_symlink:
        data = _directory_bytes(item, placed) if node.is_dir else node.target
        os.pwrite(out, data[:whole], item.block * BLOCK)
        os.pwrite(out, data[whole:], at_tail)


def _names(node: Inode) -> list[bytes]:
    return sorted([*node.children, b".", b".."])


def _directory_blocks(node: Inode) -> list[list[bytes]]:
    """Return the names of a directory, divided into blocks.

    Names are sorted over the whole directory, because the kernel looks them up by binary search:
    first for the block, then inside it. An entry never crosses a block boundary.
    """
    blocks: list[list[bytes]] = [[]]
    used = 0
    for name in _names(node):
        need = DIRENT.size + len(name)
        if used + need > BLOCK:
            blocks.append([])
            used = 0
        blocks[-1].append(name)
        used += need
    return blocks


def _directory_sizes(node: Inode) -> list[int]:
    blocks = _directory_blocks(node)
    return [BLOCK] * (len(blocks) - 1) + [sum(DIRENT.size + len(name) for name in blocks[-1])]


def _directory_bytes(item: _Placed, placed: dict[int, _Placed]) -> bytes:
    """Return the blocks of a directory: first all entries, then all names they point to."""
    blocks = []
    for names in _directory_blocks(item.node):
        entries, text = bytearray(), bytearray()
        for name in names:
            child = item.node if name == b"." else item.parent if name == b".." else item.node.children[name]
            offset = DIRENT.size * len(names) + len(text)
            entries += DIRENT.pack(placed[id(child)].nid, offset, _FILE_TYPES[stat.S_IFMT(child.mode)])
            text += name
        blocks.append(bytes(entries + text))
    return b"".join([block.ljust(BLOCK, b"\0") for block in blocks[:-1]] + blocks[-1:])


def _xattr_body(xattrs: dict[bytes, bytes]) -> bytes:
    """Return the inline extended attributes of an inode, a header of 12 bytes before them."""
    if not xattrs:
        return b""
    body = bytearray(12)  # the header: no name filter, no shared attributes
    for full, value in sorted(xattrs.items()):
        index, name = _xattr_name(full)
        if len(name) > 255 or len(value) > 65535:
            raise InnkeeperError(f"extended attribute {full[:64].decode(errors='replace')} is too long")
        entry = struct.pack("<BBH", len(name), index, len(value)) + name + value
        body += entry.ljust(_up(len(entry), 4), b"\0")
    if len(body) > 65535 * 4:
        raise InnkeeperError("a file of the image has more than 256 KiB of extended attributes")
    return bytes(body)


def is_stored_xattr(full: bytes) -> bool:
    """Return whether erofs can store an extended attribute of this name."""
    return _split_xattr(full) is not None


def _split_xattr(full: bytes) -> tuple[int, bytes] | None:
    """Return the number of the name's prefix and the rest of the name.

    Returns None for a kind that Linux or erofs does not support.
    """
    if b"\0" in full:
        return None
    for prefix, index in _XATTR_PREFIXES:
        if full == prefix if prefix.startswith(b"system.") else full.startswith(prefix) and full != prefix:
            return index, full[len(prefix) :]
    return None


def _xattr_name(full: bytes) -> tuple[int, bytes]:
    if (found := _split_xattr(full)) is not None:
        return found
    raise InnkeeperError(f"extended attribute {full.decode(errors='replace')}: erofs has no place for this kind")


def _encode_device(rdev: tuple[int, int]) -> int:
    """Return a device number in the kernel's format (new_encode_dev)."""
    major, minor = rdev
    if not (0 <= major < 2**12 and 0 <= minor < 2**20):
        raise InnkeeperError(f"device {major}:{minor} has numbers that Linux does not know")
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


class _Sources:
    """Layer files, each opened once."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def copy(self, node: Inode, start: int, end: int, out: int, at: int) -> None:
        """Copy the bytes start..end of `node` to offset `at` of `out`.

        Holes and long runs of zeros become holes.
        """
        for extent in node.extents:
            first, last = max(start, extent.offset), min(end, extent.offset + extent.length)
            if first < last:
                self._send(extent.source, extent.source_offset + first - extent.offset, last - first, out, at + first - start)

    def _send(self, source: Path, offset: int, length: int, out: int, at: int) -> None:
        """Copy `length` bytes of a layer, leaving holes for chunks of zeros."""
        if source not in self._open:
            self._open[source] = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        while length:
            data = os.pread(self._open[source], min(length, BUFFER_SIZE), offset)
            if not data:
                raise InnkeeperError(f"layer {source.name} ends early")
            if data != _ZEROS[: len(data)]:  # the device starts as one hole, which reads as zeros
                os.pwrite(out, data, at)
            offset, at, length = offset + len(data), at + len(data), length - len(data)

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
