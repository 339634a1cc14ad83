"""Process 1 of a pod's shared pid namespace."""

import platform
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from innkeeper.client import Agent, RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.shim import pause
from innkeeper.wire import status
from tests.eventually import eventually


class FakeAgent:
    """Keeps what it is asked for. The calls named by `failing` fail once."""

    def __init__(self, *failing: str) -> None:
        self.created: Any = None
        self.started = self.removed = ""
        self._failing = list(failing)

    def create_container(self, request: Any) -> None:
        self._answer("create")
        self.created = request

    def start_container(self, id: str) -> None:
        self._answer("start")
        self.started = id

    def remove_container(self, id: str) -> None:
        self._answer("remove")
        self.removed = id

    def _answer(self, call: str) -> None:
        if call in self._failing:
            self._failing.remove(call)
            raise RpcError(status.INTERNAL, f"{call} has failed")


def test_the_program_waits_and_has_its_children_reaped(tmp_path: Path) -> None:
    agent = FakeAgent()
    pause.create(cast(Agent, agent), tmp_path)
    assert (agent.created.container_id, agent.started) == (pause.ID, pause.ID)
    with subprocess.Popen([tmp_path / pause.ID / "rootfs" / pause.PROGRAM]) as waiting:
        try:
            eventually(lambda: _status(waiting.pid, "SigIgn") == 1 << (signal.SIGCHLD - 1))
            eventually(lambda: Path(f"/proc/{waiting.pid}/stat").read_text().split()[2] == "S")
            assert waiting.poll() is None
        finally:
            waiting.kill()
        assert waiting.wait() == -signal.SIGKILL


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(f"{field}:"))


def test_its_container_can_do_nothing() -> None:
    process = pause.document()["process"]
    assert process["user"] == {"uid": 65535, "gid": 65535}
    assert process["noNewPrivileges"] is True and "capabilities" not in process


def test_another_processor_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "platform", SimpleNamespace(machine=lambda: "riscv64"))
    with pytest.raises(InnkeeperError, match=r"linux.namespaces\[pid\]: .* on riscv64"):
        pause.create(cast(Agent, FakeAgent()), tmp_path)
    assert platform.machine() in pause.CODE


@pytest.mark.parametrize("failing", [("create",), ("start",), ("start", "remove")])
def test_after_a_failure_it_can_be_tried_again(tmp_path: Path, failing: tuple[str, ...]) -> None:
    agent = FakeAgent(*failing)
    with pytest.raises(RpcError, match=f"{failing[0]} has failed"):
        pause.create(cast(Agent, agent), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert agent.removed == (pause.ID if failing == ("start",) else "")
    pause.create(cast(Agent, agent), tmp_path)
    assert agent.started == pause.ID
