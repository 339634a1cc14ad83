"""The life of a container as containerd hears of it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from innkeeper.shim.container import Container
from innkeeper.shim.events import Publisher
from innkeeper.shim.hooks import Hooks
from innkeeper.shim.machine import Machine
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.process import CREATED, STOPPED
from innkeeper.shim.state import State


class Events(Publisher):
    """What is published, in order."""

    def __init__(self) -> None:
        super().__init__("", "default")
        self.seen: list[Any] = []

    def publish(self, event: Any) -> None:
        self.seen.append(event)


class Vm:
    """Stands in for the process that a VM is."""

    pid = 5

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.reports: list[Callable[[], None]] = []

    def on_end(self, report: Callable[[], None]) -> None:
        self.reports.append(report)

    def end(self) -> bool:
        self.ended.set()
        return True


@pytest.mark.parametrize("how", ["kill", "the end of QEMU"])
def test_an_exit_before_the_start_is_published(tmp_path: Path, how: str) -> None:
    """As with runc: the first process exists from the creation on."""
    vm, events = Vm(), Events()
    request = pb.CreateTaskRequest(id="one", bundle=str(tmp_path))
    state = State(tmp_path)
    container = Container(request, cast(Machine, vm), events, state, Hooks({}, "one", state), owns_machine=True)
    container.attend()
    assert container.status("") == CREATED
    if how == "kill":
        container.init.kill(15, everything=False)
    else:
        vm.reports[0]()
    assert container.status("") == STOPPED
    (event,) = events.seen
    assert (type(event), event.id, event.exit_status) == (pb.TaskExit, "one", 143 if how == "kill" else 137)
    assert vm.ended.wait(10)
    container.delete("")
    assert type(events.seen[-1]) is pb.TaskDelete
