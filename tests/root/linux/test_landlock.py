"""What a process that Landlock confines can still do, on this host's kernel."""

import os
import socket
from pathlib import Path

import pytest

from agent import loop
from agent.errors import StepFailed
from agent.linux import landlock
from agent.storage import copyfile
from agent.worker import run_in_worker
from innkeeper.wire.pb.agent_pb2 import CopyFileRequest
from tests.forked import forked
from tests.needs import needs

pytestmark = [pytest.mark.root, needs("landlock")]


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    directory = tmp_path / "inside"
    directory.mkdir()
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to("../secret")
    return directory


def denied(action: str, path: Path) -> bool:
    try:
        with open(path, action) as file:
            file.write("x") if "w" in action else file.read()
    except PermissionError:
        return True
    return False


def test_only_what_is_below_the_directory(inside: Path) -> None:
    def body() -> None:
        assert landlock.confine(os.open(inside, os.O_PATH))
        assert not denied("w", inside / "file")
        assert not denied("r", inside / "file")
        (inside / "sub").mkdir()
        (inside / "file").rename(inside / "sub/file")
        (inside / "sub/link").symlink_to("file")
        for path in (inside.parent / "secret", inside / "link", inside.parent / "new"):
            assert denied("r" if path.exists() else "w", path), path
        with pytest.raises(PermissionError):
            os.unlink(inside.parent / "secret")

    forked(body)
    assert (inside.parent / "secret").read_text() == "secret"
    assert (inside / "sub/file").read_text() == "x"


def test_no_network_and_no_way_back(inside: Path) -> None:
    def body() -> None:
        landlock.confine(os.open(inside, os.O_PATH))
        if landlock.abi() >= 4:  # older kernels confine files only
            with socket.socket() as sock, pytest.raises(PermissionError):
                sock.bind(("127.0.0.1", 0))
        assert landlock.confine(os.open(inside.parent, os.O_PATH))
        assert denied("r", inside.parent / "secret"), "a wider rule gives nothing back"

    forked(body)


def test_a_worker_of_copyfile_is_confined_to_its_root(inside: Path) -> None:
    request = CopyFileRequest(path=f"{inside}/a/b", dir_mode=0o755)

    def work(then: Path) -> None:
        copyfile._open_parent(str(inside), "a/b", request)
        os.close(os.open(then, os.O_WRONLY | os.O_CREAT))

    loop.run(run_in_worker(lambda: work(inside / "a/b"), "inside"))
    with pytest.raises(StepFailed, match="Permission denied"):
        loop.run(run_in_worker(lambda: work(inside.parent / "secret"), "outside"))
    assert (inside / "a/b").exists()
