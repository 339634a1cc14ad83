"""Copies in a guest: who has them, what is sent for a change, and what happens if that fails."""

from pathlib import Path
from typing import cast

import pytest

from innkeeper.client import Agent, RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.shim import copies, file_tree, log
from innkeeper.shim.copies import Copies
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2
from tests.eventually import eventually


class Guest:
    """An agent that notes what it is sent: path -> content of a file, target of a link, b"" of a folder."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fails = 0

    def copy_file(self, request: agent_pb2.CopyFileRequest) -> None:
        if self.fails:
            self.fails -= 1
            raise RpcError(status.INTERNAL, "no space left")
        before = self.files.get(request.path, b"") if request.offset else b""
        self.files[request.path] = before + request.data

    def remove_file(self, path: str) -> None:
        self.files = {name: data for name, data in self.files.items() if name != path and not name.startswith(f"{path}/")}


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def held(guest: Guest) -> Copies:
    return Copies(cast("Agent", guest))


def test_one_copy_for_all_containers(guest: Guest, held: Copies, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(data := b"x" * (copies.PART + 1))
    held.acquire(file)
    held.acquire(file)
    held.release(file)
    assert guest.files == {copies.place(file): data}
    held.release(file)
    assert guest.files == {}
    held.close()


def test_a_change_that_fails_is_tried_again(guest: Guest, held: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "error", told.append)
    monkeypatch.setattr(copies, "RETRY_SECONDS", 0.05)
    held.acquire(tmp_path)
    guest.fails = 2
    (tmp_path / "file").write_text("text")
    eventually(lambda: guest.files.get(f"{copies.place(tmp_path)}/file") == b"text")
    assert len(told) == 1 and "no space left" in told[0]
    monkeypatch.setattr(file_tree, "MAX_BYTES", 10)
    (tmp_path / "file").write_text("larger than that")
    eventually(lambda: len(told) == 2)
    assert "too large" in told[1] and guest.files[f"{copies.place(tmp_path)}/file"] == b"text"
    held.close()


def test_what_fails_at_first_is_not_kept(guest: Guest, held: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("text")
    guest.fails = 2
    with pytest.raises(RpcError, match="no space left"):
        held.acquire(tmp_path)
    assert guest.files == {}
    with pytest.raises(FileNotFoundError):
        held.acquire(tmp_path / "none")
    monkeypatch.setattr(copies, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(file_tree, "open_file", changed)
    guest.fails = 0
    with pytest.raises(InnkeeperError, match="changes faster"):
        held.acquire(tmp_path)
    held.close()


def changed(*what: object) -> int:
    raise file_tree.ChangedError
