"""A sandbox with real containers, storages and namespaces, over stand-ins for what only root may do.

Mounts are noted by tests/unit/storage/kernel.py, and workers run in this process. A container's processes are never forked: `end` gives
them a status. Everything that a test may hold up or let fail goes through `Steps`.
"""

import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent import log, loop
from agent import sandbox as sandbox_module
from agent.config import Config
from agent.container import container as container_module
from agent.container.cgroup.manager import Cgroup
from agent.container.create import ContainerBuilder
from agent.container.exec_ import ExecBuilder
from agent.container.process import ContainerProcess
from agent.container.process_io import DEFAULT_IO, ProcessIO
from agent.errors import WrongState
from agent.network import dns
from agent.pod import namespaces
from agent.sandbox import Sandbox
from innkeeper.wire.pb.agent_pb2 import CreateContainerRequest, CreateSandboxRequest, Storage
from tests.unit.container.documents import SMALL
from tests.unit.storage import kernel

LIMIT = 20
KILLED = 137


class Steps:
    """The steps that were `taken`, in order. A step can be held until an event, and can be made to fail once.

    Each parks `parks` times, so that others come in between.
    """

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.parks = 0
        self._held: dict[str, loop.Event] = {}

    def hold(self, step: str) -> loop.Event:
        """Park whoever takes the step until the returned event is set."""
        return self._held.setdefault(step, loop.Event())

    async def take(self, step: str) -> None:
        self.taken.append(step)
        for _ in range(self.parks):
            await loop.sleep(0)
        if step in self._held:
            await self._held[step].wait()
        if step in self.fails:
            raise self.fails.pop(step)

    async def reached(self, step: str, times: int = 1) -> None:
        """Wait until the step was begun so many times."""
        with loop.timeout(LIMIT):
            while self.taken.count(step) < times:
                await loop.sleep(0)


class FakeProcess(ContainerProcess):
    """A process with real streams and no program."""

    def __init__(self, steps: Steps, exec_id: str, terminal: bool, io: ProcessIO) -> None:
        super().__init__(exec_id, terminal, io)
        self.signals: list[int] = []
        self._steps = steps

    def end(self, status: int) -> None:
        """Let it end as if its program had. Only the first end counts."""
        if self.exit_status is None:
            self._set_ended(status)

    async def start(self, hooks: bool = False, hooks_timeout: float | None = 0.0) -> None:
        await self._steps.take(f"start {self.exec_id}")
        self.started = True

    def signal(self, signum: int) -> None:
        if self.exit_status is not None:
            raise WrongState(f"process {self.exec_id!r} has ended")
        self.signals.append(signum)

    async def kill(self) -> None:
        self.end(KILLED)


class FakeCgroup(Cgroup):
    """A cgroup without a directory. `oom` takes the numbers of kills."""

    def __init__(self, steps: Steps, id: str, init: ContainerProcess) -> None:
        self.earlier_oom_kills = 0
        self.oom: loop.Queue[int] = loop.Queue()
        self.processes = [init]
        self._steps = steps
        self._id = id

    def kill(self) -> None:
        self._steps.taken.append(f"kill {self._id}")
        for process in self.processes:
            assert isinstance(process, FakeProcess)
            process.end(KILLED)
        self.oom.close()

    async def oom_kills_after(self, seen: int) -> int | None:
        try:
            return seen + await self.oom.get()
        except loop.QueueClosed:
            return None

    async def emptied(self) -> None:
        assert all(process.exit_status is not None for process in self.processes)

    async def remove(self) -> None:
        await self._steps.take(f"remove {self._id}")


class Guest:
    """The sandbox and what a test asks of it. `namespaces` and `swaps` are what is there at the moment, `log` the lines so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.steps = Steps()
        self.mounts = kernel.install(monkeypatch, _made(folder / "kernel"))
        self.namespaces: set[str] = set()
        self.swaps: list[str] = []
        self.hostnames: list[str] = []
        self.log: list[str] = []
        self.processes: list[FakeProcess] = []
        self.state = folder / "state"
        self.resolv_conf = folder / "resolv.conf"
        monkeypatch.setattr(log, "_sink", lambda line: self.log.append(line.decode()))
        self._replace_containers(monkeypatch)
        self._replace_namespaces(monkeypatch)
        monkeypatch.setattr(dns.set_dns, "__defaults__", (str(self.resolv_conf), str(self.state / "sandbox/resolv.conf")))
        monkeypatch.setattr(dns, "clone_tree", self.mounts.clone_tree)
        monkeypatch.setattr(dns, "move_mount_path", lambda mount, path: None)
        monkeypatch.setattr(sandbox_module, "STATE", str(self.state))
        monkeypatch.setattr(sandbox_module, "run_in_worker", self._work)
        monkeypatch.setattr(sandbox_module, "swapon", self.swaps.append)
        monkeypatch.setattr(sandbox_module, "swapoff", self._swapoff)
        self.sandbox = Sandbox(Config(), _made(folder / "cgroup"))

    def _replace_containers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put stand-ins where agent.container.container forks: everything else of a container is real."""
        steps, processes = self.steps, self.processes

        def process(exec_id: str, terminal: bool, io: ProcessIO = DEFAULT_IO) -> ContainerProcess:
            processes.append(FakeProcess(steps, exec_id, terminal, io))
            return processes[-1]

        class Builder(ContainerBuilder):
            async def run(self) -> None:
                await steps.take(f"create {self._id}")
                self.warnings.append(f"a warning of {self._id}")
                self.cgroup = FakeCgroup(steps, self._id, self.init)
                self.init.pid = 1 << 30

        class Adder(ExecBuilder):
            async def run(self) -> None:
                assert isinstance(self._container.cgroup, FakeCgroup)
                self._container.cgroup.processes.append(self._added)
                await self._added.start()

        monkeypatch.setattr(container_module, "ContainerProcess", process)
        monkeypatch.setattr(container_module, "ContainerBuilder", Builder)
        monkeypatch.setattr(container_module, "ExecBuilder", Adder)

    def _replace_namespaces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def umount2(path: str, flags: int) -> None:
            if path not in self.namespaces:
                raise OSError(22, "Invalid argument", path)
            self.namespaces.remove(path)

        directory = str(self.folder / "namespaces")
        monkeypatch.setattr(namespaces.SharedNamespaces.make, "__defaults__", (directory,))
        monkeypatch.setattr(namespaces.SharedNamespaces.unmake, "__defaults__", (directory,))
        monkeypatch.setattr(namespaces, "NewNamespaces", self._enter_namespaces)
        monkeypatch.setattr(socket, "sethostname", self.hostnames.append)
        monkeypatch.setattr(namespaces, "open_tree", lambda directory, path, flags: os.open(path, os.O_PATH))
        monkeypatch.setattr(namespaces, "move_mount_path", lambda mount, path: self.namespaces.add(path))
        monkeypatch.setattr(namespaces, "umount2", umount2)

    def _enter_namespaces(self, *flags: int) -> nullcontext[None]:
        if (failure := self.steps.fails.pop("sandbox namespaces", None)) is not None:
            raise failure
        return nullcontext()

    def _swapoff(self, *nodes: str) -> None:
        for node in nodes:
            self.swaps.remove(node)

    async def _work(self, work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
        await self.steps.take(name)
        return await kernel.run_here(work, name, keep, given)

    def run(self, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a test's body in the loop, then end the sandbox and see that no storage is left."""

        async def main() -> None:
            try:
                with loop.timeout(LIMIT):
                    await body()
                    await self.sandbox.destroy()
            finally:
                for process in self.processes:
                    process.close()

        loop.run(main())
        assert self.mounts.mounts == {}

    async def create(self, **fields: Any) -> None:
        """Create the sandbox."""
        await self.sandbox.create(CreateSandboxRequest(**{"sandbox_id": "pod", **fields}))

    async def add(self, id: str, *storages: Storage, **fields: Any) -> FakeProcess:
        """Create a container."""
        request = CreateContainerRequest(container_id=id, storages=storages, **fields)
        return _fake(await self.sandbox.containers.create(request, SMALL))

    async def exec(self, id: str, exec_id: str) -> FakeProcess:
        return _fake(await self.sandbox.containers.exec(id, exec_id, SMALL["process"]))

    def cgroup(self, id: str) -> FakeCgroup:
        cgroup = self.sandbox.containers.get(id).cgroup
        assert isinstance(cgroup, FakeCgroup)
        return cgroup

    def storage(self, name: str, **fields: Any) -> Storage:
        """A tmpfs below the test's folder."""
        return Storage(driver="ephemeral", fstype="tmpfs", mount_point=str(self.folder / name), **fields)

    @property
    def ids(self) -> list[str]:
        """The ids of the containers that are there."""
        return [container.id for container, _created in self.sandbox.containers.with_creation_times()]

    async def published(self) -> list[tuple[int, str, str, int]]:
        """Return (kind, container, exec id, exit status) of every event so far, after all ready tasks have run."""
        for _ in range(5):
            await loop.sleep(0)
        if not self.sandbox.events.last:
            return []
        return [(event.kind, event.container_id, event.exec_id, event.exit_status) for event in await self.sandbox.events.after(0)]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _fake(process: ContainerProcess) -> FakeProcess:
    assert isinstance(process, FakeProcess)
    return process


async def cancelled(task: "loop.Task[Any]") -> None:
    """Cancel a call as a client's deadline does, and wait for its cleanup."""
    task.cancel()
    with suppress(loop.TaskCancelled):
        await task.wait()


start = partial(loop.spawn, name="call")
"""Start a call of a client that runs beside the others."""
