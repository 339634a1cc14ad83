"""A container: its life cycle, its processes and its cgroup."""

from collections.abc import Callable
from functools import partial

from agent import loop
from agent.container import seccomp_notify
from agent.container.cgroup.manager import Cgroup
from agent.container.cgroup.stats import ContainerStats
from agent.container.create import ContainerBuilder
from agent.container.exec_ import ExecBuilder
from agent.container.hooks import StatusHooks, total_timeout
from agent.container.host_context import HostContext
from agent.container.lifecycle import LEGAL, Status
from agent.container.oom_watches import OomWatches
from agent.container.process import ContainerProcess
from agent.container.process_io import DEFAULT_IO, ProcessIO
from agent.container.rootfs.idmap import Mappings, mappings_of
from agent.container.spec.document import Spec, check_id
from agent.container.spec.process import Process
from agent.container.spec.resources import Resources
from agent.container.state import State
from agent.container.step_times import mark
from agent.errors import AlreadyExists, NotFound, Refused, StepFailed, WrongState
from agent.run_to_completion import run_to_completion

FAILED_HOOKS_SECONDS = 30.0
"""Seconds that the poststop hooks of a failed creation may take in all.

Nobody can remove a container that does not exist, so nothing else would end them.
"""


class Container:
    """One container. `create` makes it. Concurrent calls are serialised.

    `warnings` lists what the specification permits to ignore, in the order in which it was found.
    """

    def __init__(self, id: str, spec: Spec, host: HostContext) -> None:
        self.id = id
        self.spec = spec
        self.host = host
        self.processes: dict[str, ContainerProcess] = {}
        self.cgroup: Cgroup | None = None
        self.warnings: list[str] = []
        self._state = State(id, str(host.bundle_of(id)), spec.annotations)
        self._lock = loop.Lock()
        self._paused = False
        self._created = False
        self._poststop_due = False
        self._hooks = StatusHooks(self._state)
        self._oom_watches = OomWatches(id)
        self._init: ContainerProcess | None = None

    @property
    def init(self) -> ContainerProcess:
        """The container's first process. Raises WrongState before there is one."""
        if self._init is None:
            raise WrongState(f"container {self.id!r} has no process")
        return self._init

    @property
    def status(self) -> Status:
        """The status at this moment."""
        if self._init is None or not self._created:
            return Status.CREATING
        if self._init.exit_status is not None:
            return Status.STOPPED
        if not self._init.started:
            return Status.CREATED
        return Status.PAUSED if self._paused else Status.RUNNING

    def mappings(self) -> tuple[Mappings, Mappings]:
        """Return the (uid, gid) mappings of the user namespace, empty if the container has none."""
        if self.spec.linux.namespaces.get("user") is not None:
            return mappings_of(self.init.pid)
        return self.spec.linux.uid_mappings, self.spec.linux.gid_mappings

    def state(self) -> dict[str, object]:
        """Return the state document of the runtime specification."""
        status = self.status
        return self._state.document(status.value, 0 if status is Status.STOPPED or self._init is None else self._init.pid)

    @classmethod
    async def create(cls, id: str, exec_id: str, spec: Spec, host: HostContext, io: ProcessIO = DEFAULT_IO) -> "Container":
        """Create a container: contain its first process and stop before its program runs.

        Raises Refused, StepFailed, and then leaves nothing behind.
        """
        container = cls(check_id(id), spec, host)
        try:
            await container._create(exec_id, io)
        except BaseException:
            await loop.shield(container._undo(FAILED_HOOKS_SECONDS))
            raise
        return container

    @classmethod
    def attach(cls, spec: Spec, host: HostContext, cgroup: Cgroup | None, init: ContainerProcess) -> "Container":
        """Return a container that another process has created. Its id is that of `init`.

        `cgroup` is None if it no longer exists.
        """
        container = cls(init.exec_id, spec, host)
        container.cgroup, container._init = cgroup, container._add(init)
        container._paused = cgroup is not None and cgroup.frozen()
        container._created = container._poststop_due = True
        return container

    async def _create(self, exec_id: str, io: ProcessIO) -> None:
        terminal = self.spec.process is not None and self.spec.process.terminal
        self._init = init = self._add(ContainerProcess(exec_id, terminal, io))
        builder = ContainerBuilder(self.id, self.spec, self.host, init, self._state)
        try:
            await builder.run()
        finally:
            self.cgroup = builder.cgroup
            self.warnings += builder.warnings
            self._poststop_due = builder.hooks_ran
        self._created = True

    def _add(self, process: ContainerProcess) -> ContainerProcess:
        """Enter a process of the container, and return it."""
        process.request_handlers = {b"listener": partial(self._send_listener, process)}
        self.processes[process.exec_id] = process
        return process

    async def _send_listener(self, process: ContainerProcess, record: bytes) -> bytes:
        """Send the listener of a filter that one of our processes has installed. Raises StepFailed.

        `record` is the process's request. Returns the answer to it.
        """
        assert self.spec.linux.seccomp is not None and self.spec.linux.seccomp.listener is not None
        listener = self.spec.linux.seccomp.listener
        document = seccomp_notify.process_state(listener, process.pid, self.state())
        await seccomp_notify.send(listener, process.pidfd, int(record.split()[1]), document)
        return b"sent"

    async def start(self) -> None:
        """Let the program run.

        Raises WrongState, Refused without a program, StepFailed. After StepFailed the container is
        stopped.
        """
        await run_to_completion(self._start(), f"start {self.id}", self._lock)

    async def _start(self) -> None:
        async with self._lock:
            self._check("start")
            mark("caller, until start")
            if self.spec.process is None:
                raise Refused("process", "missing: there is nothing to start")
            try:
                listed = self.spec.hooks.start_container
                await self.init.start(bool(listed), total_timeout(listed))
                mark("agent: execve seen")
                await self._hooks.run(self.spec.hooks.poststart, "running", self.init.pid)
            except StepFailed:
                if self.cgroup is not None:
                    self.cgroup.kill()
                await self.init.kill()
                raise

    async def exec(
        self, exec_id: str, process: Process, io: ProcessIO = DEFAULT_IO, cgroup: str | None = None, paused: bool = False
    ) -> ContainerProcess:
        """Run one more process in the namespaces of the first one.

        `cgroup` is the path of a cgroup below the container's in which the process starts. "" is
        the container's own cgroup and no other. With None, `ExecBuilder` chooses one. `paused` also
        permits a paused container, in which the process waits until the container is resumed.
        Raises WrongState, AlreadyExists, Refused, StepFailed.
        """
        async with self._lock:
            if not (paused and self.status is Status.PAUSED):
                self._check("exec")
            if exec_id in self.processes:
                raise AlreadyExists(f"process {exec_id!r} exists in container {self.id!r}")
            added = self._add(ContainerProcess(exec_id, process.terminal, io))
            try:
                await ExecBuilder(self, added, process, cgroup, self.status is Status.PAUSED).run()
            except BaseException:
                await loop.shield(self._discard(added))
                raise
            return added

    async def _discard(self, added: ContainerProcess) -> None:
        """End a process whose creation has failed, and free its id."""
        await added.kill()
        added.close()
        self.processes.pop(added.exec_id, None)  # a waiter may have removed it

    def _check(self, verb: str) -> None:
        if self.status not in LEGAL[verb]:
            raise WrongState(f"container {self.id!r} is {self.status.value}: cannot {verb}")

    def process(self, exec_id: str) -> ContainerProcess:
        """Return a process by its id. "" is the first process. Raises NotFound."""
        if not exec_id or (self._init is not None and exec_id == self._init.exec_id):
            return self.init
        try:
            return self.processes[exec_id]
        except KeyError:
            raise NotFound(f"process {exec_id!r} not found in container {self.id!r}") from None

    def signal_all(self, signum: int) -> None:
        """Send a signal to every process of the cgroup. Raises WrongState."""
        self._live_cgroup().signal(signum)

    def _live_cgroup(self) -> Cgroup:
        if self.cgroup is None:
            raise WrongState(f"container {self.id!r} is removed")
        return self.cgroup

    async def pause(self) -> None:
        """Freeze every process. Raises WrongState, StepFailed.

        After StepFailed, and if the caller is cancelled, the container keeps running.
        """
        async with self._lock:
            self._check("pause")
            await self._live_cgroup().freeze(True)
            self._paused = True

    async def resume(self) -> None:
        """Thaw every process. Raises WrongState, and StepFailed if it takes too long.

        The container resumes also after StepFailed.
        """
        async with self._lock:
            self._check("resume")
            self._paused = False
            await self._live_cgroup().freeze(False)

    async def update(self, resources: Resources) -> None:
        """Set new limits. Raises Refused, WrongState, StepFailed, and then keeps the old limits."""
        await run_to_completion(self._update(resources), f"update {self.id}", self._lock)

    async def _update(self, resources: Resources) -> None:
        async with self._lock:
            self._check("update")
            await self._live_cgroup().apply(resources)

    def stats(self) -> ContainerStats:
        """Return what the cgroup has used. Raises WrongState."""
        return self._live_cgroup().stats()

    async def watch_oom(self, killed: Callable[[int], None]) -> None:
        """Call `killed` with the number of new OOM kills each time there are some.

        Returns when the container has no process left or is removed.
        """
        if self.cgroup is not None:
            await self._oom_watches.watch(self.cgroup, killed)

    def pids(self) -> list[int]:
        """Return the pids of the cgroup's processes, as the agent sees them."""
        return self.cgroup.pids() if self.cgroup is not None else []

    async def delete(self) -> None:
        """Undo everything of a stopped container. Raises WrongState for one that is alive."""
        async with self._lock:
            self._check("delete")
            await self._undo()

    async def remove(self) -> None:
        """End every process and undo everything.

        Raises WrongState while the container is being created, StepFailed.
        """
        self._check("remove")
        # Before the lock: its holder may be waiting for one of these processes or hooks to end.
        if self.cgroup is not None:
            self.cgroup.kill()
        self._hooks.cancel()
        async with self._lock:
            mark("caller, until remove")
            await self._undo()

    async def _undo(self, hooks_seconds: float | None = None) -> None:
        """End every process and undo everything. The poststop hooks may take `hooks_seconds`.

        The processes stay in the table: their statuses can be asked for as long as the container
        itself is found.
        """
        if self.cgroup is not None:
            self.cgroup.kill()
        for process in list(self.processes.values()):
            await process.kill()
            process.close()
        mark("agent: end and close processes")
        if self.cgroup is not None:
            await self.cgroup.emptied()
            await self._oom_watches.end()
            await self.cgroup.remove()
            self.cgroup = None
        mark("agent: remove cgroup")
        if self._poststop_due:
            self._poststop_due = False
            try:
                with loop.timeout(hooks_seconds):
                    self.warnings += await self._hooks.run_last(self.spec.hooks.poststop)
            except TimeoutError:
                self.warnings.append(f"poststop hooks: not done within {hooks_seconds} s")
