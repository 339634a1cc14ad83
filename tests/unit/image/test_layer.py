"""Layers: what a tar says becomes a tree, and layers over each other are what overlayfs would show."""

import io
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.image.layer import read_layer
from innkeeper.image.tree import Inode, link_mtab, lookup, merge, new_directory, read, real_directory
from tests.image_helpers import walk


def entry(name: str, data: bytes | None = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode = fields.pop("mode", 0o644)
    for key, value in fields.items():
        setattr(info, key, value)
    info.size = len(data or b"") if info.isreg() else 0
    return info, data or b""


def folder(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=kind, linkname=target)


def layer(path: Path, entries: Iterable[tuple[tarfile.TarInfo, bytes]], lower: Inode | None = None) -> Inode:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return read_layer(path, lower or new_directory())


def stack(tmp_path: Path, *layers: list[tuple[tarfile.TarInfo, bytes]]) -> Inode:
    tree = new_directory()
    for number, entries in enumerate(layers):
        tree = merge(tree, layer(tmp_path / f"layer{number}.tar", entries, tree))
    return tree


def names(tree: Inode) -> list[str]:
    return [path.decode() for path, _, _ in walk(tree)]


def content(tree: Inode, path: str) -> bytes | None:
    node = lookup(tree, path.encode())
    return read(node, 1 << 20) if node else None


def test_attributes_are_kept(tmp_path: Path) -> None:
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.user.odd": b"\xff\xfe\0=\n1".decode("utf-8", "surrogateescape"),
        "mtime": "1700000000.123456789",
    }
    tree = layer(
        tmp_path / "l.tar",
        [
            folder("./", 0o1777, uid=5),
            entry("bin/su", b"x", mode=0o4755, uid=3_000_000_000, gid=7, pax_headers=headers),
            entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("pipe", type=tarfile.FIFOTYPE),
        ],
    )
    assert (tree.mode, tree.uid) == (stat.S_IFDIR | 0o1777, 5)
    su = tree.children[b"bin"].children[b"su"]
    assert (su.mode, su.uid, su.gid) == (stat.S_IFREG | 0o4755, 3_000_000_000, 7)
    assert su.mtime_ns == 1700000000123456789
    assert su.xattrs == {b"security.capability": capability, b"user.odd": b"\xff\xfe\0=\n1"}
    null = lookup(tree, b"/dev/null")
    assert null is not None
    assert stat.S_ISCHR(null.mode) and null.rdev == (1, 3)
    assert stat.S_ISFIFO(tree.children[b"pipe"].mode)


def test_whiteout_hides_only_what_is_below(tmp_path: Path) -> None:
    tree = stack(
        tmp_path,
        [folder("d"), entry("d/gone"), entry("d/stays"), entry("other")],
        [entry("d/.wh.gone"), entry(".wh.other"), entry("other", b"new")],
    )
    assert names(tree) == ["/d", "/other", "/d/stays"]
    assert content(tree, "/other") == b"new"


@pytest.mark.parametrize("order", [["marker", "new"], ["new", "marker"]])
def test_opaque_folder_keeps_its_own_layer(tmp_path: Path, order: list[str]) -> None:
    parts = {"marker": entry("d/.wh..wh..opq"), "new": entry("d/new")}
    tree = stack(tmp_path, [folder("d", 0o700), entry("d/old")], [folder("d"), *(parts[name] for name in order)])
    assert names(tree) == ["/d", "/d/new"]
    assert tree.children[b"d"].mode & 0o7777 == 0o755


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_removed_and_remade_folder_shows_nothing_old(tmp_path: Path, whiteout_first: bool) -> None:
    upper = [entry(".wh.d"), folder("d"), entry("d/new")]
    if not whiteout_first:
        upper = [*upper[1:], upper[0]]
    assert names(stack(tmp_path, [folder("d"), entry("d/old")], upper)) == ["/d", "/d/new"]


def test_overlay_whiteout_device(tmp_path: Path) -> None:
    upper = [entry("f", type=tarfile.CHRTYPE, devmajor=0, devminor=0)]
    assert names(stack(tmp_path, [entry("f"), entry("g")], upper)) == ["/g"]


def test_kinds_replace_each_other(tmp_path: Path) -> None:
    tree = stack(
        tmp_path,
        [folder("a"), entry("a/in"), entry("b"), link("c", "a"), folder("e"), entry("e/in")],
        [entry("a", b"file"), folder("b"), entry("b/in"), folder("c"), entry("c/in"), link("e", "b")],
    )
    assert names(tree) == ["/a", "/b", "/c", "/e", "/b/in", "/c/in"]
    assert content(tree, "/a") == b"file"
    assert content(tree, "/e/in") == b""


def test_folder_passed_through_keeps_its_attributes(tmp_path: Path) -> None:
    tree = stack(tmp_path, [folder("d", 0o700, uid=9)], [entry("d/new")])
    assert (tree.children[b"d"].mode & 0o7777, tree.children[b"d"].uid) == (0o700, 9)


def test_hard_links_share_an_inode_within_and_across_layers(tmp_path: Path) -> None:
    tree = stack(
        tmp_path,
        [entry("a", b"one"), link("b", "a", tarfile.LNKTYPE)],
        [link("c", "/b", tarfile.LNKTYPE), entry("b", b"two")],
    )
    assert tree.children[b"a"] is tree.children[b"c"]
    assert content(tree, "/b") == b"two"


def test_links_in_a_name_are_followed_inside_the_layer_only(tmp_path: Path) -> None:
    tree = layer(tmp_path / "l.tar", [folder("usr/lib"), link("lib", "/usr/lib"), entry("lib/x", b"1")])
    assert content(tree, "/usr/lib/x") == b"1"
    upper = stack(tmp_path, [folder("usr"), entry("usr/y"), link("u", "usr")], [entry("u/x")])
    assert names(upper) == ["/u", "/usr", "/u/x", "/usr/y"]  # as overlayfs: a folder hides the link


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry("../etc/passwd")], "leaves the image"),
        ([entry("a/../../b")], "leaves the image"),
        ([link("l", "/nowhere"), entry("l/x")], "symbolic link to nothing"),
        ([link("l", "../../.."), entry("f"), entry("f/x")], "not a directory"),
        ([link("h", "../../etc/shadow", tarfile.LNKTYPE)], "leaves the image"),
        ([link("h", "missing", tarfile.LNKTYPE)], "not a file in the image"),
        ([entry("n" * 256)], "longer"),
        ([entry("x", uid=2**32)], "out of range"),
        ([entry("x", type=b"Z")], "unknown kind"),
        ([entry(".wh.")], "whiteout of nothing"),
        ([entry("x", pax_headers={"mtime": "1e999999999"})], "time"),
        ([link("s", "x" * 4096)], "too long"),
    ],
)
def test_refused(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], why: str) -> None:
    with pytest.raises(InnkeeperError, match=why):
        layer(tmp_path / "l.tar", entries)


def test_absolute_names_and_links_stay_inside(tmp_path: Path) -> None:
    tree = layer(tmp_path / "l.tar", [folder("d"), link("up", "../../../d"), entry("/up/x", b"in")])
    assert content(tree, "/d/x") == b"in"
    loop = layer(tmp_path / "m.tar", [link("a", "b"), link("b", "a")])
    assert lookup(loop, b"/a") is None


def test_real_directory_has_no_links(tmp_path: Path) -> None:
    tree = layer(tmp_path / "l.tar", [folder("srv/data"), link("var", "/srv"), entry("f"), link("out", "../../..")])
    assert real_directory(tree, b"/var/../srv/./data/") == b"/srv/data"
    assert real_directory(tree, b"var/data") == b"/srv/data"
    assert real_directory(tree, b"/out") == b"/"
    assert real_directory(tree, b"/f") is None
    assert real_directory(tree, b"/var/none") is None


@pytest.mark.parametrize("cut", [700, 512, 1100])
def test_broken_archive_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "l.tar"
    layer(path, [entry("a", b"x" * 600), entry("b")])
    data = bytearray(path.read_bytes())
    if cut == 512 + 1024 - 436:  # damage the second header
        data[1536:1540] = b"\xff\xff\xff\xff"
    else:
        del data[cut + 200 :]
    path.write_bytes(data)
    with pytest.raises(InnkeeperError, match=r"l\.tar"):
        read_layer(path, new_directory())


def test_sparse_file(tmp_path: Path) -> None:
    import subprocess

    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
        file.truncate(3 << 20)
    for form in ("gnu", "pax"):
        subprocess.run(["tar", f"--format={form}", "-S", "-C", tmp_path, "-cf", tmp_path / "l.tar", "sparse"], check=True)
        tree = read_layer(tmp_path / "l.tar", new_directory())
        node = tree.children[b"sparse"]
        assert node.size == 3 << 20
        assert sum(extent.length for extent in node.extents) < 100_000
        assert read(node, 4 << 20) == source.read_bytes()


def test_overlay_attributes_do_not_reach_the_guest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.keep": "1"}
    tree = layer(tmp_path / "l.tar", [folder("d", pax_headers=headers)])
    assert tree.children[b"d"].xattrs == {b"user.keep": b"1"}
    assert "trusted.overlay.redirect" in capsys.readouterr().err


def test_dots_in_a_name_are_resolved_as_text(tmp_path: Path) -> None:
    tree = layer(tmp_path / "l.tar", [entry("a/../b/x", b"x"), link("y", "a/../b/x", tarfile.LNKTYPE), entry("/./c//d/.", b"d")])
    assert names(tree) == ["/b", "/c", "/y", "/b/x", "/c/d"]
    assert tree.children[b"y"] is lookup(tree, b"/b/x")


def test_a_layer_of_no_bytes_is_empty(tmp_path: Path) -> None:
    for size in (0, 512, 1024, 10240):
        (tmp_path / "l.tar").write_bytes(bytes(size))
        assert names(read_layer(tmp_path / "l.tar", new_directory())) == []


def test_files_behind_a_lone_block_of_zeros_are_not_lost_silently(tmp_path: Path) -> None:
    path = tmp_path / "l.tar"
    layer(path, [entry("a"), entry("b")])
    data = path.read_bytes()
    path.write_bytes(data[:512] + bytes(512) + data[512:])
    with pytest.raises(InnkeeperError, match="single block of zeros"):
        read_layer(path, new_directory())
    path.write_bytes(data[:1024] + bytes(1024) + b"behind the end".ljust(512))
    assert names(read_layer(path, new_directory())) == ["/a", "/b"]


def test_attributes_that_linux_has_no_place_for_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"user.kept": "yes", "security.capability": "\x01", "trusted.x": "", "system.posix_acl_access": "\x02"}
    odd = {"com.apple.provenance": "\x01\x02\udcff\0", "com.apple.quarantine": "0081;x", "system.nfs4_acl": "x", "user.": "x", "": "x"}
    headers = {f"SCHILY.xattr.{name}": value for name, value in {**kept, **odd}.items()}
    headers["LIBARCHIVE.xattr.com.apple.FinderInfo"] = "AAAA"
    tree = layer(tmp_path / "l.tar", [entry("a", pax_headers=headers), entry("b", pax_headers=headers)])
    for name in (b"a", b"b"):
        assert sorted(tree.children[name].xattrs) == sorted(key.encode() for key in kept)
    warned = capsys.readouterr().err
    assert warned.count("com.apple.provenance") == 1, "once for a name"


def test_mtab_is_a_link_to_the_mounts(tmp_path: Path) -> None:
    def mtab(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
        tree = layer(tmp_path / "l.tar", entries)
        link_mtab(tree)
        found = lookup(tree, b"/etc/mtab", follow_last=False)
        return b"" if found is None else found.target

    assert mtab() == b"/proc/mounts"
    assert mtab(entry("etc/mtab", b"of the machine it was made on")) == b"/proc/mounts"
    assert mtab(folder("usr/etc"), link("etc", "usr/etc")) == b"/proc/mounts"
    assert mtab(link("etc/mtab", "../proc/self/mounts")) == b"../proc/self/mounts"
    assert mtab(entry("etc", b"a file")) == mtab(link("etc", "nowhere")) == b""


def test_old_archives(tmp_path: Path) -> None:
    """A v7 header has no magic and tells a folder by the slash at its name's end; GNU's has long names in entries of their own."""
    path = tmp_path / "l.tar"
    long = "d/" + "n" * 200
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in (folder("d/"), entry(long, b"long"), entry("big", uid=3_000_000_000)):
            archive.addfile(info, io.BytesIO(data))
    raw = bytearray(path.read_bytes())
    raw[156:157] = tarfile.AREGTYPE
    raw[257:265] = bytes(8)
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 8 * 32)
    path.write_bytes(raw)
    tree = read_layer(path, new_directory())
    assert tree.children[b"d"].is_dir
    assert content(tree, long) == b"long"
    assert tree.children[b"big"].uid == 3_000_000_000
