"""Trees of files to be copied: what is seen, in which order it is made and removed, what is refused."""

import os
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import file_tree
from innkeeper.shim.inotify import Inotify


def test_a_version_of_kubelet(tmp_path: Path) -> None:
    """Files come first, then the link to the new version, then the links to that. What is gone goes in the same order."""
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(version)
    for name, target in (("..data", "..2"), ("a", "..data/key"), ("-first", "..data/key")):
        (tmp_path / name).symlink_to(target)
    tree = file_tree.scan(tmp_path)
    order = file_tree.in_order(list(tree), tree)
    assert order == ["", "..1", "..1/key", "..2", "..2/key", "..data", "-first", "a"]
    assert (tree["..data"].target, tree["..2/key"].version.size, tree["..2"].is_folder) == (b"..2", 3, True)
    left = {name: entry for name, entry in tree.items() if name not in ("..1", "..1/key", "a")}
    assert file_tree.vanished(tree, left) == ["a", "..1"]


def test_a_folder_that_became_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/y").touch()
    old = file_tree.scan(tmp_path)
    (tmp_path / "x/y").unlink()
    (tmp_path / "x").rmdir()
    (tmp_path / "x").touch()
    assert file_tree.vanished(old, file_tree.scan(tmp_path)) == []  # the file takes the folder's place, with all in it


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither one that was there, nor one that takes the place of a file or a folder after the look."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    for folder in (source / "sub", outside):
        folder.mkdir(parents=True)
        (folder / "file").write_text("secret" if folder == outside else "fine")
    (source / "link").symlink_to(outside)
    tree = file_tree.scan(source)
    assert sorted(tree) == ["", "link", "sub", "sub/file"]
    version = tree["sub/file"].version
    with open(file_tree.open_file(source, "sub/file", version)) as file:
        assert file.read() == "fine"
    (source / "sub").rename(source / "moved")
    (source / "sub").symlink_to(outside)
    (source / "file").symlink_to(outside / "file")
    for name in ("sub/file", "file"):
        with pytest.raises((file_tree.ChangedError, NotADirectoryError)):
            file_tree.open_file(source, name, version)
    with pytest.raises(file_tree.ChangedError):
        file_tree.open_file(source, "moved/file", version._replace(size=9))


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("text")
    tree = file_tree.scan(tmp_path / "hosts")
    assert list(tree) == [""]
    with open(file_tree.open_file(tmp_path / "hosts", "", tree[""].version)) as file:
        assert file.read() == "text"


def test_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    for limit, value in (("MAX_BYTES", 99), ("MAX_ENTRIES", 1), ("MAX_DEPTH", -1)):
        with monkeypatch.context() as patch:
            patch.setattr(file_tree, limit, value)
            with pytest.raises(InnkeeperError, match="too large"):
                file_tree.scan(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InnkeeperError, match="fifo is neither a file, a folder nor a link"):
        file_tree.scan(tmp_path)


def test_folders_are_watched(tmp_path: Path) -> None:
    notices, numbers = Inotify(), dict[int, str]()
    (tmp_path / "sub").mkdir()
    file_tree.scan(tmp_path, lambda folder: numbers.update({notices.watch(folder): os.readlink(f"/proc/self/fd/{folder}")}))
    assert sorted(numbers.values()) == [str(tmp_path), str(tmp_path / "sub")]
    assert notices.wait(0) == set()
    (tmp_path / "sub/file").touch()
    assert {numbers[number] for number in notices.wait(None)} == {str(tmp_path / "sub")}
    notices.wake()
    assert notices.wait(None) == set()
    notices.close()


def test_the_kernel_has_no_watch_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then folders are looked at now and then."""
    monkeypatch.setattr("innkeeper.shim.inotify.libc", NoInstance())
    notices = Inotify()
    assert notices.misses and notices.watch(os.open(tmp_path, os.O_RDONLY)) == -1
    assert notices.wait(0) == set()
    notices.close()


class NoInstance:
    """inotify_init1(2) that fails."""

    def inotify_init1(self, flags: int) -> int:
        import ctypes
        import errno

        ctypes.set_errno(errno.EMFILE)
        return -1
