"""A command that waits for the lock of another process says so after a second, and names the process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from types import SimpleNamespace
from typing import cast

import pytest

import build
from innkeeper import files, paths, progress
from innkeeper.engine import templates
from innkeeper.guest.store import Store
from innkeeper.image import block_device
from innkeeper.vm import HostPrograms, VmConfig, template
from tests.eventually import eventually, pause
from tests.paths import ROOT

HOLDS = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line after a twentieth of a second, and progress that is printed."""
    monkeypatch.setattr(files, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(progress, "_quiet", False)


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Have another process hold the lock of a file, and yield the id of that process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        yield holder.pid  # it ends when its input is closed


def said_while_held(path: Path, waits: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    """Return what is printed while another process holds the lock that `waits` needs, and the id of that process."""
    waiter = Thread(target=waits)
    said: list[str] = []

    def printed() -> bool:
        said.append(capsys.readouterr().err)
        return "\n" in "".join(said)

    with held(path) as pid:
        waiter.start()
        eventually(printed, "nothing is printed")
        assert waiter.is_alive()
    waiter.join()
    assert capsys.readouterr().err == "", "it is said once"
    return "".join(said), pid


def test_the_holder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """On a tmpfs: other file systems may hide the holder (`files._holder`)."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "lock")

        def waits() -> None:
            with files.locked(path, work="builds the guest"):
                pass

        said, pid = said_while_held(path, waits, capsys)
    assert said == f"waiting for another process (pid {pid}) that builds the guest ...\n"


def test_one_that_waits_is_not_taken_for_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "locks"
    monkeypatch.setattr(files, "Path", lambda _: listed)
    with (tmp_path / "lock").open("w") as file:
        found = os.fstat(file.fileno())
        here = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino} 0 EOF"
        others = f"1: POSIX  ADVISORY  WRITE 5 {here}\n2: FLOCK  ADVISORY  WRITE 6 00:00:1 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 7 {here}\n"
        for pid, holder in ((None, None), (8, 8), (0, None)):  # 0 is a process of another pid namespace
            listed.write_text(others if pid is None else f"{others}3: FLOCK  ADVISORY  WRITE {pid} {here}\n")
            assert files._holder(file.fileno()) == holder


@pytest.mark.parametrize(("quiet", "work"), [(True, "builds the guest"), (False, "")])
def test_no_line(quiet: bool, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --quiet, and for a lock that nobody holds for long."""
    monkeypatch.setattr(progress, "_quiet", quiet)
    looked: list[int] = []
    monkeypatch.setattr(files, "_holder", looked.append)
    path = tmp_path / "lock"
    with held(path):
        waiter = Thread(target=lambda: os.close(files.lock(path, work=work)))
        waiter.start()
        if work:
            eventually(lambda: looked, "the time is not over")
        else:
            pause(0.2, "four times as long as it takes until a line is printed")
    waiter.join()
    assert capsys.readouterr().err == ""


def test_a_lock_that_is_free_is_taken_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_waiting_noted", None)
    with files.locked(tmp_path / "lock", work="builds the guest"), pytest.raises(BlockingIOError):
        files.lock(tmp_path / "lock", wait=False, work="builds the guest")


def test_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    made = store.step("rootfs", {}, lambda _: None)
    store.discard(made)
    said, _ = said_while_held(tmp_path / ".locks" / made.name, lambda: store.step("rootfs", {}, lambda _: None), capsys)
    assert said.endswith("that builds the guest (step rootfs) ...\n")


def test_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "0123"
    folder.mkdir()
    (folder / build.COMPLETE).touch()
    said, _ = said_while_held(tmp_path / "0123.lock", lambda: build._make_locked(folder, ""), capsys)
    assert said.endswith("that makes the private Python environment ...\n")


def test_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(paths, "images_root", lambda: tmp_path)
    monkeypatch.setattr(block_device, "_locate", lambda reference, *_: (reference, "1234"))
    monkeypatch.setattr(block_device, "_build", lambda *_: None)
    monkeypatch.setattr(block_device, "_load", lambda *_: None)
    monkeypatch.setattr(progress, "step", lambda _: nullcontext())
    said, _ = said_while_held(tmp_path / "1234.lock", lambda: block_device.resolve("oci:image"), capsys)
    assert said.endswith("that fetches image oci:image ...\n")


def test_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the other process has made is not made again."""
    monkeypatch.setattr(template, "templates_root", lambda: tmp_path)
    there = iter((False, True))
    monkeypatch.setattr(template, "exists", lambda key: next(there))
    host, config = cast(HostPrograms, SimpleNamespace()), cast(VmConfig, SimpleNamespace())
    said, _ = said_while_held(tmp_path / ".key.making", lambda: templates.make_now(host, config, "key"), capsys)
    assert said.endswith("that makes a template of the guest ...\n")


@pytest.mark.parametrize(("words", "quiet"), [("-q run", True), ("--debug --quiet", True), ("run -q", False), ("", False)])
def test_quiet_holds_before_there_is_an_environment(words: str, quiet: bool) -> None:
    program = (
        "import build, sys; from innkeeper import progress; build.environment = lambda _: sys.exit(str(progress.is_quiet())); build.main()"
    )
    done = subprocess.run([sys.executable, "-c", program, *words.split()], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == f"{quiet}\n"
