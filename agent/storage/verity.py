"""dm-verity: a disk whose every block is checked against a root hash.

The source is the kernel's documentation "dm-verity". The options of a storage that ask for it are
X-kata.dmverity-enabled=true and X-kata.dmverity.NAME=VALUE. The root hash comes from these options,
never from the disk, and no block is used before it has been checked. The exception is the layout in
the superblock, which is not covered by the hash: it is confirmed only when the hashes that it leads
to match.
"""

import os
import re
import struct
from dataclasses import dataclass

from agent.errors import Refused
from agent.linux import dm
from agent.linux.fd import OwnedFd

FIELD = "storage.options"
ENABLED = "X-kata.dmverity-enabled"
PREFIX = "X-kata.dmverity."
NAMES = frozenset(("roothash", "hashoffset", "blocksize", "hashsize", "algorithm", "salt", "hashtype", "no-superblock"))
ALGORITHMS = {"sha256": 64, "sha512": 128}
"""Hash algorithm -> number of hexadecimal digits of its hash."""
BLOCK_SIZES = frozenset((512, 1024, 2048, 4096))
SECTOR = 512
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
_MAGIC = b"verity\0\0"
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Verity:
    """The layout of a disk with a hash tree. Sizes and offsets are in bytes.

    If `data_blocks` is 0 the data reaches up to the hash offset.
    """

    roothash: str
    hash_offset: int
    block_size: int = 4096
    hash_size: int = 4096
    algorithm: str = "sha256"
    salt: str = "-"
    hash_type: int = 1
    superblock: bool = True
    data_blocks: int = 0


def parse(options: dict[str, str]) -> Verity | None:
    """Parse the options of a storage. Return None if they do not enable dm-verity.

    Raises Refused.
    """
    given = {key.removeprefix(PREFIX): value for key, value in options.items() if key.startswith(PREFIX)}
    enabled = options.get(ENABLED, "false")
    if enabled not in ("true", "false"):
        raise Refused(FIELD, f"{ENABLED}={enabled}: true or false")
    if enabled != "true":
        if given:
            raise Refused(FIELD, f"{PREFIX}{min(given)} without {ENABLED}=true")
        return None
    for name in given:
        if name not in NAMES:
            raise Refused(FIELD, f"{PREFIX}{name} is unknown")
    algorithm = given.get("algorithm", "sha256")
    if algorithm not in ALGORITHMS:
        raise Refused(FIELD, f"{PREFIX}algorithm={algorithm}: {' or '.join(ALGORITHMS)}")
    salt = given.get("salt", "")
    return Verity(
        roothash=_hexadecimal("roothash", given.get("roothash", ""), ALGORITHMS[algorithm]),
        hash_offset=_number(given, "hashoffset", None),
        block_size=_size(given, "blocksize"),
        hash_size=_size(given, "hashsize"),
        algorithm=algorithm,
        salt=_hexadecimal("salt", salt, None) if salt not in ("", "-") else "-",
        hash_type=_number(given, "hashtype", 1),
        superblock=given.get("no-superblock", "false") != "true",
    )


def _hexadecimal(name: str, value: str, digits: int | None) -> str:
    text = value.lower()
    if not _HEX.fullmatch(text) or len(text) % 2 or len(text) > 512 or (digits is not None and len(text) != digits):
        raise Refused(FIELD, f"{PREFIX}{name}={value[:70]}: not {digits or 'up to 512'} hexadecimal digits")
    return text


def _number(given: dict[str, str], name: str, default: int | None) -> int:
    text = given.get(name, "" if default is None else str(default))
    if not text.isdecimal() or len(text) > 18:
        raise Refused(FIELD, f"{PREFIX}{name}={text[:32]}: not a number")
    return int(text)


def _size(given: dict[str, str], name: str) -> int:
    size = _number(given, name, 4096)
    if size not in BLOCK_SIZES:
        raise Refused(FIELD, f"{PREFIX}{name}={size}: not one of {sorted(BLOCK_SIZES)}")
    return size


def open_verified(node: str, verity: Verity, name: str) -> str:
    """Create the dm-verity device `name` over `node` and return its device node.

    Runs in a worker. A read of a block that does not match its hash fails with EIO. Raises OSError
    and Refused.
    """
    layout = _read_superblock(node, verity) if verity.superblock else verity
    if layout.hash_offset % layout.hash_size:
        raise Refused(FIELD, f"{PREFIX}hashoffset={layout.hash_offset} is no multiple of {layout.hash_size}")
    blocks = layout.data_blocks or layout.hash_offset // layout.block_size
    first_hash = layout.hash_offset // layout.hash_size
    words = (
        *(layout.hash_type, node, node, layout.block_size, layout.hash_size, blocks, first_hash),
        *(layout.algorithm, layout.roothash, layout.salt),
    )
    return dm.create(name, blocks * layout.block_size // SECTOR, "verity", " ".join(map(str, words)))


def _read_superblock(node: str, verity: Verity) -> Verity:
    """Return the layout that the superblock at the hash offset describes.

    The hash tree begins in the next hash block after the superblock. Raises Refused for a missing
    or unusable superblock, and for one with another salt than the options give.
    """
    with OwnedFd(os.open(node, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        data = os.pread(fd, _SUPERBLOCK.size, verity.hash_offset)
    if len(data) < _SUPERBLOCK.size or not data.startswith(_MAGIC):
        raise Refused(FIELD, f"{PREFIX}hashoffset={verity.hash_offset}: {node} has no superblock of dm-verity there")
    _, version, hash_type, _, algorithm, block_size, hash_size, blocks, salt_size, salt = _SUPERBLOCK.unpack(data)
    algorithm_name = algorithm.rstrip(b"\0").decode("ascii", "replace")
    if (
        version != 1
        or algorithm_name != verity.algorithm
        or block_size not in BLOCK_SIZES
        or hash_size not in BLOCK_SIZES
        or salt_size > 256
    ):
        what = f"version {version}, {algorithm_name[:32]}, blocks of {block_size}, hashes in blocks of {hash_size}"
        raise Refused(FIELD, f"{node}: a superblock of dm-verity that cannot be used: {what}")
    found_salt = salt[:salt_size].hex() or "-"
    if verity.salt not in ("-", found_salt):
        raise Refused(FIELD, f"{PREFIX}salt is not the superblock's")
    return Verity(
        roothash=verity.roothash,
        hash_offset=-(-(verity.hash_offset + _SUPERBLOCK.size) // hash_size) * hash_size,
        block_size=block_size,
        hash_size=hash_size,
        algorithm=algorithm_name,
        salt=found_salt,
        hash_type=hash_type,
        superblock=False,
        data_blocks=blocks,
    )
