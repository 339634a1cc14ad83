"""The containers of the sandbox by id, with their processes.

Requests run as concurrent tasks, and any of them may be cancelled by a client's deadline at an
await. Creating a container undoes itself in that case. Starting and removing one go on to their end
in a task of their own (agent/run_to_completion.py).
"""

import errno
import re
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent import event_log, log, loop
from agent.container import step_times
from agent.container.container import Container
from agent.container.process_io import DEFAULT_IO, ProcessIO
from agent.container.spec.document import parse_process, parse_spec
from agent.container.stdio import Stdio
from agent.errors import AlreadyExists, NotFound, Refused, StepFailed, WrongState
from agent.pod.namespaces import SharedNamespaces, ends_now, pid_namespace_of, without_container
from agent.pod.shell import Shells
from agent.pod.signals import would_drop
from agent.pod.spec_translator import SpecTranslator
from agent.run_to_completion import run_to_completion
from agent.storage.manager import StorageManager, mount_storages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config import Config
    from agent.container.host_context import HostContext
    from agent.container.process import ContainerProcess
    from agent.container.spec.document import Spec
    from agent.container.spec.process import Process
    from agent.container.spec.reader import Document
    from agent.container_events import ContainerEvents
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import CreateContainerRequest

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
CREATING_SECONDS = 10.0
"""Seconds that `let_creations_end` waits for containers that are being created."""


class Containers:
    """The containers and what they share. Entries of `by_id` are added and removed by methods only.

    `host` is the environment that they are created in, without the namespaces.
    """

    def __init__(
        self, settings: "Config", host: "HostContext", devices: "DeviceWatch", storages: StorageManager, life: "ContainerEvents"
    ) -> None:
        self.by_id: dict[str, Container] = {}
        self.namespaces = SharedNamespaces()
        self.translator = SpecTranslator(settings, devices)
        self.shells = Shells()
        """Processes of the pseudo-container "guest"."""
        self._settings = settings
        self._host = host
        self._storages = storages
        self._life = life
        self._created: dict[str, float] = {}
        """Container id -> time of creation, in seconds since the epoch."""
        self._mount_points: dict[str, list[str]] = {}
        self._closed = False
        self._creating: set[str] = set()
        self._creation_ended = loop.Event()
        """Set when the creation of a container has ended, with success or not."""
        self._removing: dict[str, loop.Event] = {}

    def close(self) -> None:
        """Admit no new containers."""
        self._closed = True

    async def let_creations_end(self) -> None:
        """Wait up to CREATING_SECONDS for containers being created."""
        try:
            with loop.timeout(CREATING_SECONDS):
                while self._creating:
                    self._creation_ended.clear()
                    await self._creation_ended.wait()
        except TimeoutError:
            log.error(f"containers still being created after {CREATING_SECONDS:g} s: {', '.join(sorted(self._creating))}", "sandbox")

    def with_creation_times(self) -> "list[tuple[Container, float]]":
        """Return each container with the time of its creation, in seconds since the epoch."""
        return [(container, self._created[id_]) for id_, container in self.by_id.items()]

    def get(self, container_id: str) -> Container:
        """Return the container with this id. Raises NotFound."""
        try:
            return self.by_id[container_id]
        except KeyError:
            raise NotFound(f"container {container_id!r} not found") from None

    def process(self, container_id: str, exec_id: str) -> "ContainerProcess":
        """Return a process by container id and exec id. Raises NotFound.

        The container id "guest" stands for the guest itself, with the processes of its shell.
        """
        if container_id == "guest" and container_id not in self.by_id:
            try:
                return self.shells.processes[exec_id]
            except KeyError:
                raise NotFound(f"Process not found: {exec_id!r} in the guest") from None
        return self.get(container_id).process(exec_id)

    async def create(self, request: "CreateContainerRequest", document: "Document") -> "ContainerProcess":
        """Mount the storages and create the container, without starting its program.

        Returns its first process. Raises AgentError, among them AlreadyExists, and WrongState once
        the sandbox is being destroyed. A failed creation leaves nothing behind.
        """
        container_id = request.container_id
        check_id("container_id", container_id)
        check_id("exec_id", request.exec_id or container_id)
        if self._closed:
            raise WrongState("the sandbox is at its end")
        if container_id in self.by_id or container_id in self._creating:
            raise AlreadyExists(f"container {container_id!r} exists")
        self._creating.add(container_id)
        points: list[str] = []
        try:
            step_times.mark("begin")
            document, target = without_container(document)
            spec = parse_spec(await self.translator.container(request, document), sandbox=self._host.owned)
            _warn(container_id, spec.warnings)
            step_times.mark("agent: parse specification")
            points = await mount_storages(self._storages, request.storages, container_id=container_id)
            step_times.mark("agent: mount storages")
            container = await self._contain(container_id, request.exec_id or container_id, spec, request.sandbox_pidns, target)
            self.by_id[container_id] = container
            self._created[container_id] = time.time()
            self._storages.commit(points)
            self._mount_points[container_id] = points
            self._life.follow(event_log.CREATED, container_id, "", container.init)
            return container.init
        except BaseException:
            self.translator.forget(container_id)
            await self._storages.release(points)
            raise
        finally:
            self._creating.discard(container_id)
            self._creation_ended.set()

    async def _contain(self, container_id: str, exec_id: str, spec: "Spec", shares_pids: bool, target: str) -> Container:
        """Create the container in the sandbox's namespaces, or in the pid namespace of `target`.

        The first of all is made alone.
        """
        async with self.namespaces.creation_lock():
            joined = self.get(target) if target else None
            pids = pid_namespace_of(joined) if joined else self.namespaces.pid() if shares_pids else None
            host = replace(self._host, namespaces=self.namespaces.paths, pid_namespace=pids)
            try:
                container = await Container.create(container_id, exec_id, spec, host, self._io(spec.process))
            except StepFailed as error:
                if pids is not None and error.errno == errno.ENOMEM:
                    if joined is None:
                        await self.namespaces.check_ending()
                    elif await ends_now(joined):
                        pid_namespace_of(joined)
                raise
            _warn(container_id, container.warnings)
            self.namespaces.created(container)
            return container

    def _io(self, process: "Process | None") -> ProcessIO:
        """Return the stdio of a new process, with pipes of the configured size."""
        size = self._settings.container_pipe_size
        return ProcessIO(Stdio(process.terminal, size)) if size and process is not None else DEFAULT_IO

    async def start(self, container_id: str) -> None:
        """Start a container's program and watch its cgroup for out-of-memory kills.

        A caller's deadline stops neither. Raises AgentError.
        """
        container = self.get(container_id)

        async def work() -> None:
            await self._life.start(container_id, container.start())
            loop.spawn(container.watch_oom(lambda kills: self._life.out_of_memory(container_id, kills)), name=f"oom {container_id}")

        await run_to_completion(work(), f"start {container_id}")

    async def exec(self, container_id: str, exec_id: str, document: "Document") -> "ContainerProcess":
        """Start an additional process in a container, and return it.

        Properties that the document leaves out are those of the container's first process. Raises
        AgentError.
        """
        check_id("exec_id", exec_id)
        container = self.get(container_id)
        process = parse_process(self.translator.process(container_id, document))
        # Not looked up by its id afterwards: a caller of `wait` may have taken it out of the table.
        started = await container.exec(exec_id, process, self._io(process))
        self._life.follow(event_log.STARTED, container_id, exec_id, started)
        return started

    async def wait(self, container_id: str, exec_id: str) -> int:
        """Wait for a process and return its exit status.

        This also works if the container is removed meanwhile.
        An exec'd process is then removed from the table, so its status can be fetched only by calls
        that were already waiting. Raises NotFound.
        """
        process = self.process(container_id, exec_id)
        container = self.by_id.get(container_id)
        table = self.shells.processes if container is None else container.processes
        status = await process.wait()
        if (container is None or process is not container.init) and table.get(exec_id) is process:
            del table[exec_id]
            process.close()
        return status

    def signal(self, container_id: str, exec_id: str, signum: int) -> None:
        """Send a signal to a process.

        Without an exec id SIGKILL goes to all processes of the container and other signals to its
        first process. The kernel drops SIGTERM for the first process of a pid namespace if that
        neither handles nor blocks it (pid_namespaces(7)), so SIGKILL is sent instead. It is no
        error if the process has ended, or all processes of a container that is being removed.

        Raises NotFound, and Refused for a number that is not a signal.
        """
        if not 1 <= signum <= 64:
            raise Refused("signal", f"{signum} is not a signal")
        if container_id in self.by_id and not exec_id and signum == signal.SIGKILL:
            try:
                self.by_id[container_id].signal_all(signum)
            except WrongState:
                pass  # the removal has taken its cgroup away, so no process is left
            return
        process = self.process(container_id, exec_id)
        if process.exit_status is not None:
            return
        is_init = container_id in self.by_id and process is self.by_id[container_id].init
        if is_init and signum == signal.SIGTERM and would_drop(process.pid, signum):
            signum = signal.SIGKILL
        try:
            process.signal(signum)
        except WrongState:
            pass  # the process has just ended

    async def remove(self, container_id: str) -> None:
        """Kill a container's processes and release all its resources. Raises AgentError.

        Once begun the removal goes on to its end. A second call meanwhile waits for the first, and
        tries again if that has failed.
        """
        container = self.get(container_id)
        while container_id in self._removing:
            await self._removing[container_id].wait()
            if self.by_id.get(container_id) is not container:
                return
        self._removing[container_id] = loop.Event()
        await run_to_completion(self._remove(container), f"remove {container_id}")

    async def _remove(self, container: Container) -> None:
        try:
            reported = len(container.warnings)
            await container.remove()
            await self._life.exits_published(container.id)
            _warn(container.id, container.warnings[reported:])
            self.namespaces.removed(container)
            self.by_id.pop(container.id, None)
            self._created.pop(container.id, None)
            self._life.removed(container.id)
            self.translator.forget(container.id)
            await self._storages.release(self._mount_points.pop(container.id, []))
            step_times.finished()
        finally:
            self._removing.pop(container.id).set()


def _warn(container_id: str, warnings: "Sequence[str]") -> None:
    for warning in warnings:
        log.warn(warning, "container", container=container_id)


def check_id(field: str, value: str) -> None:
    """Raise Refused for an id that is not safe as a component of a path."""
    if not ID.fullmatch(value) or len(value) > 255:
        raise Refused(field, f"{value[:64]!r} must begin with a letter or digit and go on with letters, digits, _ . -")
