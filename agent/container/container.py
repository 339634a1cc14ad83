"""A container: its life cycle, its processes, its cgroup."""

import os
import signal
from collections.abc import Callable
from functools import partial

from agent import loop
from agent.carried import carried
from agent.container import hooks, notify
from agent.container.cgroup.manager import Cgroup
from agent.container.cgroup.stats import ContainerStats
from agent.container.create import Birth
from agent.container.exec_ import join
from agent.container.host import HostContext
from agent.container.lifecycle import LEGAL, Status
from agent.container.process import NOTHING_GIVEN, ContainerProcess, Given
from agent.container.rootfs.idmap import Mappings, mappings_of
from agent.container.spec.document import Spec, check_id
from agent.container.spec.hooks import Hook
from agent.container.spec.process import Process
from agent.container.spec.resources import Resources
from agent.container.state import State
from agent.container.step_times import mark
from agent.errors import AlreadyExists, NotFound, Refused, StepFailed, WrongState

LAST_OOM_SECONDS = 1.0


class Container:
    """One container. Made by `create`; concurrent calls are serialised.

    `warnings` lists what the specification allows to pass over, as it was found on the way.
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
        self._hooks_due = False
        self._hook: loop.Task[None] | None = None
        self._watches: list[loop.Task[None]] = []
        self._init: ContainerProcess | None = None

    @property
    def init(self) -> ContainerProcess:
        """The first process."""
        if self._init is None:
            raise WrongState(f"container {self.id!r} has no process")
        return self._init

    @property
    def status(self) -> Status:
        """Where it is in its life, as of now."""
        if self._init is None or not self._created:
            return Status.CREATING
        if self._init.exit_status is not None:
            return Status.STOPPED
        if not self._init.started:
            return Status.CREATED
        return Status.PAUSED if self._paused else Status.RUNNING

    def mappings(self) -> tuple[Mappings, Mappings]:
        """(users, groups) of its user namespace; none where it has none of its own."""
        if self.spec.linux.namespaces.get("user") is not None:
            return mappings_of(self.init.pid)
        return self.spec.linux.uid_mappings, self.spec.linux.gid_mappings

    def state(self) -> dict[str, object]:
        """The specification's state document."""
        status = self.status
        return self._state.document(status.value, 0 if status is Status.STOPPED or self._init is None else self._init.pid)

    @classmethod
    async def create(cls, id: str, exec_id: str, spec: Spec, host: HostContext, given: Given = NOTHING_GIVEN) -> "Container":
        """Contain the first process and stop before its program runs. Raises Refused, StepFailed; nothing is left then."""
        container = cls(check_id(id), spec, host)
        try:
            await container._create(exec_id, given)
        except BaseException:
            await container._undo()
            raise
        return container

    @classmethod
    def attach(cls, spec: Spec, host: HostContext, cgroup: Cgroup | None, init: ContainerProcess) -> "Container":
        """A container that another process has created, with its group, if there is one still, and its first process, named like it."""
        container = cls(init.exec_id, spec, host)
        container.cgroup, container._init = cgroup, init
        container.processes[init.exec_id] = init
        container._paused = cgroup is not None and cgroup.frozen()
        container._created = container._hooks_due = True
        init.questions = {b"listener": partial(container.send_listener, init)}
        return container

    async def _create(self, exec_id: str, given: Given) -> None:
        self._init = init = ContainerProcess(exec_id, self.spec.process is not None and self.spec.process.terminal, given)
        self.processes[exec_id] = init
        init.questions = {b"listener": partial(self.send_listener, init)}
        birth = Birth(self.id, self.spec, self.host, init, self._state)
        try:
            await birth.run()
        finally:
            self.cgroup = birth.cgroup
            self.warnings += birth.warnings
            self._hooks_due = birth.begun
        self._created = True

    async def send_listener(self, process: ContainerProcess, record: bytes) -> bytes:
        """Answer a process of ours that has installed a filter with a listener. Raises StepFailed."""
        assert self.spec.linux.seccomp is not None and self.spec.linux.seccomp.listener is not None
        listener = self.spec.linux.seccomp.listener
        document = notify.process_state(listener, process.pid, self.state())
        await notify.send(listener, process.pidfd, int(record.split()[1]), document)
        return b"sent"

    async def start(self) -> None:
        """Let the program run. Raises WrongState, Refused without a program, StepFailed; the container is at its end after the last."""
        await carried(self._start(), f"start {self.id}")

    async def _start(self) -> None:
        async with self._lock:
            self._check("start")
            mark("caller, until start")
            if self.spec.process is None:
                raise Refused("process", "missing: there is nothing to start")
            try:
                listed = self.spec.hooks.start_container
                await self.init.start(bool(listed), hooks.patience(listed))
                mark("agent: execve seen")
                await self._run_hooks(self.spec.hooks.poststart, "running", self.init.pid)
            except StepFailed:
                await self._end()
                raise

    async def _run_hooks(self, listed: tuple[Hook, ...], status: str, pid: int) -> None:
        """Hooks after a status has been reached. Whoever removes the container meanwhile ends them. Raises StepFailed."""
        if not listed:
            return
        running = hooks.run(listed, self._state.encode(status, pid), self._state.bundle)
        self._hook = task = loop.spawn(running, name=f"hooks {self.id}")
        try:
            await task.wait()
        except loop.TaskCancelled:
            raise StepFailed("run hook", "the container has been removed meanwhile") from None
        finally:
            self._hook = None
            await task.stop()

    async def exec(
        self, exec_id: str, process: Process, given: Given = NOTHING_GIVEN, group: str | None = None, paused: bool = False
    ) -> ContainerProcess:
        """Run one more process in the namespaces of the first. Raises WrongState, AlreadyExists, Refused, StepFailed.

        `group`: the path below the container's group in which it starts, "" for this itself and no other; None: as `join` finds one.
        `paused`: also in a paused container, where it waits until that is resumed.
        """
        async with self._lock:
            if not (paused and self.status is Status.PAUSED):
                self._check("exec")
            if exec_id in self.processes:
                raise AlreadyExists(f"process {exec_id!r} exists in container {self.id!r}")
            added = self.processes[exec_id] = ContainerProcess(exec_id, process.terminal, given)
            try:
                await join(self, added, process, group, self.status is Status.PAUSED)
            except BaseException:
                await added.kill()
                added.close()
                self.processes.pop(exec_id, None)  # whoever waits for it may have forgotten it already
                raise
            return added

    def _check(self, verb: str) -> None:
        if self.status not in LEGAL[verb]:
            raise WrongState(f"container {self.id!r} is {self.status.value}: cannot {verb}")

    def process(self, exec_id: str) -> ContainerProcess:
        """A process by its id; "" is the first one, as is its own. Raises NotFound."""
        if not exec_id or (self._init is not None and exec_id == self._init.exec_id):
            return self.init
        try:
            return self.processes[exec_id]
        except KeyError:
            raise NotFound(f"process {exec_id!r} not found in container {self.id!r}") from None

    def signal(self, exec_id: str, signum: int) -> None:
        """Signal one process. Never waits for another call: a signal may be what ends it. Raises WrongState, NotFound."""
        process = self.process(exec_id)
        if process is self._init:
            self._check("signal")
        process.signal(signum)

    def signal_all(self, signum: int) -> None:
        """Signal every process of the container's group; SIGKILL by cgroup.kill, which no fork outruns. Raises WrongState."""
        group = self._group()
        if signum == signal.SIGKILL:
            group.kill()
            return
        for pid in group.pids():
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue

    def _group(self) -> Cgroup:
        if self.cgroup is None:
            raise WrongState(f"container {self.id!r} is removed")
        return self.cgroup

    async def pause(self) -> None:
        """Freeze every process. Raises WrongState, StepFailed; it runs on then, as it does when the caller is cancelled."""
        async with self._lock:
            self._check("pause")
            await self._group().freeze(True)
            self._paused = True

    async def resume(self) -> None:
        """Thaw. Raises WrongState, and StepFailed when it takes too long; it is on its way to run all the same."""
        async with self._lock:
            self._check("resume")
            self._paused = False
            await self._group().freeze(False)

    async def update(self, resources: Resources) -> None:
        """New limits. Raises Refused, WrongState, StepFailed; the limits before are in force then."""
        await carried(self._update(resources), f"update {self.id}")

    async def _update(self, resources: Resources) -> None:
        async with self._lock:
            self._check("update")
            await self._group().apply(resources)

    def stats(self) -> ContainerStats:
        """What the group has used. Raises WrongState."""
        return self._group().stats()

    async def watch_oom(self, killed: Callable[[int], None]) -> None:
        """Tell `killed` each time how many more processes the kernel has ended for want of memory, until none is left."""
        if self.cgroup is None:
            return
        watch = loop.spawn(_follow_oom(self.cgroup, killed), name=f"oom {self.id}")
        self._watches.append(watch)
        try:
            await watch.wait()
        except loop.TaskCancelled:
            return  # by removal
        finally:
            self._watches.remove(watch)
            await watch.stop()

    def pids(self) -> list[int]:
        """The processes of the group, as the agent sees them."""
        return self.cgroup.pids() if self.cgroup is not None else []

    async def delete(self) -> None:
        """Undo everything of a container that has ended. Raises WrongState for one that lives."""
        async with self._lock:
            self._check("delete")
            await self._undo()

    async def remove(self) -> None:
        """End every process and undo everything. Raises WrongState while it is being created, StepFailed."""
        self._check("remove")
        # Whoever holds the lock may wait for one of these.
        if self.cgroup is not None:
            self.cgroup.kill()
        if self._hook is not None:
            self._hook.cancel()
        async with self._lock:
            mark("caller, until remove")
            await self._undo()

    async def _end(self) -> None:
        """A start that has failed: the program is stopped and what it had is given back, so that only `remove` is left."""
        if self.cgroup is not None:
            self.cgroup.kill()
        await self.init.kill()

    async def _undo(self) -> None:
        if self.cgroup is not None:
            self.cgroup.kill()
        for process in list(self.processes.values()):
            await process.kill()
            process.close()
        mark("agent: end and close processes")
        if self.cgroup is not None:
            await self.cgroup.emptied()
            await self._last_oom_kills()
            await self.cgroup.remove()
            self.cgroup = None
        mark("agent: remove cgroup")
        if self._hooks_due:
            self._hooks_due = False
            await self._run_last_hooks()
        self.processes.clear()

    async def _last_oom_kills(self) -> None:
        """Let those who follow them see the last one: they end by themselves, as no process is left. The files go with the group."""
        for watch in list(self._watches):
            try:
                with loop.timeout(LAST_OOM_SECONDS):
                    await watch.wait()
            except TimeoutError:
                watch.cancel()

    async def _run_last_hooks(self) -> None:
        """A failure is warned of, and the next one runs."""
        for hook in self.spec.hooks.poststop:
            try:
                await self._run_hooks((hook,), "stopped", 0)
            except StepFailed as error:
                self.warnings.append(str(error))


async def _follow_oom(group: Cgroup, killed: Callable[[int], None]) -> None:
    seen = group.earlier_oom_kills
    while (count := await group.oom_kills_after(seen)) is not None:
        killed(count - seen)
        seen = count


__all__ = ["Container", "HostContext", "Status"]
