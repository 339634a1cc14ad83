"""The erofs writer, read back by fsck.erofs and by the format's own rules."""

import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.errors import InnkeeperError
from innkeeper.image import erofs
from innkeeper.image.block_device import ACCOUNTS_MAX, _account_file
from innkeeper.image.tree import Extent, Inode, new_directory
from tests.needs import needs

UUID = bytes(range(16))


def file_node(folder: Path, data: bytes, name: str = "source") -> Inode:
    source = folder / name
    source.write_bytes(data)
    return Inode(stat.S_IFREG | 0o644, size=len(data), extents=[Extent(0, len(data), source, 0)] if data else [])


def write(tree: Inode, path: Path) -> bytes:
    path.unlink(missing_ok=True)
    erofs.write_erofs(tree, path, UUID)
    return path.read_bytes()


def test_superblock(tmp_path: Path) -> None:
    data = write(new_directory(), tmp_path / "i")
    magic, _, _, bits = struct.unpack_from("<IIIB", data, 1024)
    assert (magic, 1 << bits) == (0xE0F5E1E2, 4096)
    assert data[1024 + 48 : 1024 + 64] == UUID
    assert len(data) % 4096 == 0
    assert struct.calcsize("<IIIBBHQQIIII16s16sI44x") == erofs.SUPER.size == 128
    assert (erofs.INODE.size, erofs.DIRENT.size) == (64, 12)


@needs("mkfs.erofs")
@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=255).filter(lambda n: not set(n) & {0, 47} and n not in (b".", b"..")),
        st.integers(0, 9000),
        max_size=60,
    )
)
def test_any_names_and_sizes_read_back(tmp_path_factory: pytest.TempPathFactory, sizes: dict[bytes, int]) -> None:
    folder = tmp_path_factory.mktemp("erofs")
    block = os.urandom(9000)
    (folder / "source").write_bytes(block)
    tree = new_directory()
    for name, size in sizes.items():
        tree.children[name] = Inode(stat.S_IFREG | 0o600, size=size, extents=[Extent(0, size, folder / "source", 0)] if size else [])
    write(tree, folder / "image")
    out = folder / "out"
    subprocess.run(["fsck.erofs", f"--extract={out}", folder / "image"], check=True, capture_output=True)
    assert {os.fsencode(name): (out / name).read_bytes() for name in os.listdir(out)} == {
        name: block[:size] for name, size in sizes.items()
    }
    shutil.rmtree(folder)


def test_zeros_become_holes(tmp_path: Path) -> None:
    tree = new_directory()
    tree.children[b"zeros"] = file_node(tmp_path, bytes(8 << 20) + b"end")
    data = write(tree, tmp_path / "i")
    assert data.count(b"end") == 1
    assert (tmp_path / "i").stat().st_blocks * 512 < 1 << 20 < len(data)


def test_same_tree_same_bits(tmp_path: Path) -> None:
    def tree(order: list[bytes]) -> Inode:
        top = new_directory()
        for name in order:
            top.children[name] = Inode(stat.S_IFLNK | 0o777, target=name, size=1)
        return top

    assert write(tree([b"a", b"b", b"c"]), tmp_path / "1") == write(tree([b"c", b"a", b"b"]), tmp_path / "2")


@pytest.mark.parametrize(
    ("xattrs", "why"),
    [
        ({b"system.nfs4_acl": b"x"}, "no place for this kind"),
        ({b"user." + b"n" * 256: b""}, "too long"),
        ({b"user.x": bytes(65536)}, "too long"),
    ],
)
def test_what_erofs_cannot_hold_is_refused(tmp_path: Path, xattrs: dict[bytes, bytes], why: str) -> None:
    tree = new_directory()
    tree.xattrs = xattrs
    with pytest.raises(InnkeeperError, match=why):
        erofs.write_erofs(tree, tmp_path / "i", UUID)


def test_device_numbers(tmp_path: Path) -> None:
    tree = new_directory()
    tree.children[b"d"] = Inode(stat.S_IFCHR, rdev=(4096, 0))
    with pytest.raises(InnkeeperError, match="device 4096:0"):
        erofs.write_erofs(tree, tmp_path / "i", UUID)


def passwd_tree(node: Inode) -> Inode:
    etc = new_directory()
    etc.children[b"passwd"] = node
    top = new_directory()
    top.children[b"etc"] = etc
    return top


def test_account_files_are_bounded_and_inside(tmp_path: Path) -> None:
    assert _account_file(new_directory(), "passwd") is None
    assert _account_file(passwd_tree(file_node(tmp_path, b"root:x:0:0\xff")), "passwd") == "root:x:0:0\udcff"
    assert _account_file(passwd_tree(file_node(tmp_path, bytes(ACCOUNTS_MAX + 1))), "passwd") is None
    for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR):
        assert _account_file(passwd_tree(Inode(kind)), "passwd") is None
    for target in (b"/../../../etc/passwd", b"passwd", b"/host/etc/passwd"):
        assert _account_file(passwd_tree(Inode(stat.S_IFLNK, target=target)), "passwd") is None
    inside = passwd_tree(Inode(stat.S_IFLNK, target=b"../../usr/passwd"))
    inside.children[b"usr"] = new_directory()
    inside.children[b"usr"].children[b"passwd"] = file_node(tmp_path, b"in")
    assert _account_file(inside, "passwd") == "in"
