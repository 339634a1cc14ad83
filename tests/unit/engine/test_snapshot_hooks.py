"""Hooks of a container around a snapshot, with a stand-in for the agent."""

import signal
import threading
from typing import Any, cast

import pytest

from innkeeper.client import Agent, RpcError
from innkeeper.engine import snapshot_hooks
from innkeeper.errors import InnkeeperError
from innkeeper.wire import status

SPEC = {
    "process": {"args": ["httpd"], "cwd": "/srv", "terminal": True, "consoleSize": {"height": 1, "width": 2}, "user": {"uid": 7, "gid": 8}}
}
PATH = "/etc/innkeeper/hooks/after-fork"


class Container:
    """Runs one hook: it prints `said`, and ends with `status`, or only when it is killed.

    A hook that `lingers` has ended, but a child of it holds its output until that is killed.
    """

    def __init__(self, *, said: bytes = b"", status: int = 0, hangs: bool = False, refusal: RpcError | None = None) -> None:
        self.processes: list[Any] = []
        self.signals: list[int] = []
        self.released = False
        self._left = [said] if said else []
        self._status = status
        self._refusal = refusal
        self._ended = threading.Event()
        if not hangs:
            self._ended.set()

    def exec_process(self, container_id: str, exec_id: str, process: Any) -> None:
        if self._refusal is not None:
            raise self._refusal
        self.processes.append(process)

    def read_stdout(self, container_id: str, exec_id: str, size: int) -> bytes:
        if self._left:
            return self._left.pop()
        assert self._ended.wait(60)
        return b""

    def read_stderr(self, container_id: str, exec_id: str, size: int) -> bytes:
        assert self._ended.wait(60)
        return b""

    def close_stdin(self, container_id: str, exec_id: str) -> None:
        pass

    def signal_process(self, container_id: str, exec_id: str, signum: int) -> None:
        self.signals.append(signum)
        self._ended.set()

    def wait_process(self, container_id: str, exec_id: str, timeout: float) -> int:
        assert self._ended.is_set()
        return self._status

    def release_process(self, container_id: str, exec_id: str) -> None:
        self.released = True


def run(container: Container) -> None:
    snapshot_hooks.run(cast(Agent, container), "web", SPEC, snapshot_hooks.AFTER_FORK)


def test_it_is_run_as_the_containers_own_process_is() -> None:
    container = Container(said=b"ready\n")
    run(container)
    (process,) = container.processes
    assert (list(process.Args), process.Cwd, process.Terminal) == ([PATH], "/srv", False)
    assert (process.User.UID, process.User.GID) == (7, 8)
    assert container.signals == []


def test_a_container_may_have_none() -> None:
    run(Container(refusal=RpcError(status.NOT_FOUND, "no such file", metadata={"step": "find program", "errno": "ENOENT"})))


def test_one_that_cannot_be_run_has_failed() -> None:
    with pytest.raises(InnkeeperError, match=f"^hook {PATH}: permission denied"):
        run(Container(refusal=RpcError(status.INTERNAL, "permission denied", metadata={"step": "execute program", "errno": "EACCES"})))


@pytest.mark.parametrize(("said", "words"), [(b"", "status 3$"), (b"first\nthe queue is full\n", "status 3: the queue is full$")])
def test_a_failure_has_its_last_line(said: bytes, words: str) -> None:
    with pytest.raises(InnkeeperError, match=f"^hook {PATH}: it ended with {words}"):
        run(Container(said=said, status=3))


def test_one_that_does_not_end_is_killed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it has ended with 0, and a child of it holds its output: only the end of the output tells."""
    assert snapshot_hooks.SECONDS == 10, "docs/howto/snapshots.md says so"
    monkeypatch.setattr(snapshot_hooks, "SECONDS", 1.0)
    container = Container(said=b"waiting\n", hangs=True)
    with pytest.raises(InnkeeperError, match=f"^hook {PATH}: it did not end within 1 s$"):
        run(container)
    assert container.signals == [signal.SIGKILL]
    assert not container.released


def test_one_that_closes_its_output_and_does_not_end_is_killed_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Container):
        def wait_process(self, container_id: str, exec_id: str, timeout: float) -> int:
            assert 0 < timeout <= 10
            raise RpcError(status.DEADLINE_EXCEEDED, "it still runs")

    container = Silent()
    with pytest.raises(InnkeeperError, match="it did not end within 10 s"):
        run(container)
    assert container.signals == [signal.SIGKILL]
    assert container.released
