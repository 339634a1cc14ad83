"""Debian's packages as files: taken from a mirror, here a server on this host, kept and checked."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest import archives, wheels
from innkeeper.guest.builder import Builder
from innkeeper.guest.pins import Package, Pins
from innkeeper.guest.store import Store
from innkeeper.paths import program_name

CONTROL = "Package: {}\nVersion: 1:2\nArchitecture: all\nMaintainer: Nobody <nobody@invalid>\nDescription: for a test\n"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a mirror that serves on this host."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(archives, "locations", lambda path: [f"http://127.0.0.1:{server.server_port}/{path}"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", Pins(file=tmp_path / "guest.lock"))


def packaged(folder: Path, name: str) -> Package:
    """A package that is made and put into a folder."""
    tree = folder / f"{name}.tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(CONTROL.format(name))
    file = folder / f"{name}_2_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, file], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return Package(name, "1:2", "all", hash_file(file), file.stat().st_size, file.name)


def test_packages_are_taken_once_and_kept(mirror: Path, store: Store, tmp_path: Path) -> None:
    one, two = packaged(mirror, "one"), packaged(mirror, "two")
    found = archives.fetch(store, [one, two], tmp_path / "log")
    assert [path.name for path in found] == ["one_1%3a2_all.deb", "two_1%3a2_all.deb"]
    assert [hash_file(path) for path in found] == [one.sha256, two.sha256]
    shutil.rmtree(mirror)
    assert archives.fetch(store, [two], tmp_path / "log") == found[1:], "the mirror is not asked again"


def test_a_flipped_byte_fails_by_name(mirror: Path, store: Store, tmp_path: Path) -> None:
    one = packaged(mirror, "one")
    (file,) = archives.fetch(store, [one], tmp_path / "log")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InnkeeperError, match=r"^one_1%3a2_all\.deb in the store is not the package that was asked for") as caught:
        archives.fetch(store, [one], tmp_path / "log")
    assert caught.value.hint == f"remove {file}: it is downloaded again then"
    file.unlink()
    assert archives.fetch(store, [one], tmp_path / "log") == [file]


def test_what_the_mirror_does_not_have_any_more_is_named_with_what_to_do(mirror: Path, store: Store, tmp_path: Path) -> None:
    one, gone = packaged(mirror, "one"), packaged(mirror, "gone")
    (mirror / gone.path).unlink()
    with pytest.raises(InnkeeperError) as caught:
        archives.fetch(store, [gone, one], tmp_path / "log")
    assert caught.value.message == f"the mirror no longer has packages that {tmp_path}/guest.lock names: gone 1:2 all"
    assert caught.value.hint == f"`{program_name()} build --refresh` takes what the mirror has now, and writes {tmp_path}/guest.lock"
    assert (store.root / ".archives" / one.file).exists(), "what could be had is kept"


def test_another_package_at_the_place_of_the_known_one_is_not_taken(mirror: Path, store: Store, tmp_path: Path) -> None:
    one = packaged(mirror, "one")
    (mirror / one.path).write_bytes(b"x" * one.size)
    with pytest.raises(InnkeeperError, match=r"packages cannot be downloaded: one 1:2 all: .*Hash Sum mismatch"):
        archives.fetch(store, [one], tmp_path / "log")
    assert not list((store.root / ".archives").glob("*.deb"))


def test_a_mirror_that_cannot_be_reached(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "locations", lambda path: [f"http://127.0.0.1:1/{path}"])
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(InnkeeperError, match=r"packages cannot be downloaded: one 1 all: .*refused") as caught:
        archives.fetch(store, [Package("one", "1", "all", "a" * 64, 1, "one.deb")], tmp_path / "log")
    assert caught.value.hint == "a mirror of Debian must be reachable"


def test_the_repository_has_exactly_the_packages_with_their_hashes(mirror: Path, store: Store, tmp_path: Path) -> None:
    one = packaged(mirror, "one")
    found = archives.fetch(store, [one], tmp_path / "log")
    assert archives.repository(tmp_path / "made", found, "trixie") == "deb [trusted=yes] {} ./"
    assert (tmp_path / "made" / "Packages").read_text() == (
        f"{CONTROL.format('one')}Filename: ./{one.file}\nSize: {one.size}\nSHA256: {one.sha256}\n\n"
    )
    assert "Codename: trixie\n" in (tmp_path / "made" / "Release").read_text()


LOCK = "# Wheels.\nsome-package==1.0 \\\n    --hash=sha256:{} \\\n    --hash=sha256:{}\n"


def test_a_wheel_with_a_flipped_byte_fails_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "store" / ".archives" / "python-trixie"
    folder.mkdir(parents=True)
    wheel = folder / "some_package-1.0-py3-none-any.whl"
    wheel.write_bytes(b"content")
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK.format(hash_file(wheel), "b" * 64))
    builder = Builder([], Store(tmp_path / "store", Pins()))
    assert wheels.fetch(builder, lock, tmp_path / "log") == {folder: "/run/innkeeper/wheels:ro"}, "nothing is run"
    wheel.write_bytes(b"Content")
    with pytest.raises(InnkeeperError, match=r"^some_package-1\.0-py3-none-any\.whl in the store is not the one of requirements\.lock"):
        wheels.fetch(builder, lock, tmp_path / "log")
