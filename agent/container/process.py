"""One process of a container, from the fork to its exit status, seen from the parent."""

import errno
import os
import select
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent import loop
from agent.container.init import child
from agent.container.init.plan import ChildPlan
from agent.container.init.report import end_child, failure
from agent.container.stdio import Stdio
from agent.container.step_times import mark
from agent.errors import Refused, StepFailed, WrongState
from agent.linux import passed_fds, procfs
from agent.linux import process as p
from agent.linux.reaper import Child, reaper

RECORD = 4096
KILL_SECONDS = 30.0
ENDING_SECONDS = 1.0
TRACED_SECONDS = 0.02
SETUP_SECONDS = 60.0  # a child that is stopped or hangs in set-up must not hold its caller for ever


@dataclass(frozen=True, slots=True)
class Given:
    """What a process gets of its creator's: streams in place of new pipes, descriptors that stay open in the program, and the listening
    socket on which it awaits its start when that comes from another process than the creator."""

    stdio: Stdio | None = None
    preserved: tuple[int, ...] = ()
    start_socket: int = -1
    left: bool = False
    """Its end is for whoever becomes its parent when this process ends: it is not reaped here."""


NOTHING_GIVEN = Given()
UNKNOWN_STATUS = -1
"""The exit status of a process that somebody else reaps."""


class ContainerProcess:
    """A process: `pid` and `pidfd` are the agent's view of it; `exit_status` is the shell's number once it has ended."""

    def __init__(self, exec_id: str, terminal: bool, given: Given = NOTHING_GIVEN) -> None:
        self.exec_id = exec_id
        self.terminal = terminal
        self.pid = 0
        self._pidfd: loop.Fd | None = None
        self.started = False
        self.exit_status: int | None = None
        self.stdio = given.stdio or Stdio(terminal)
        self._given = given
        self._ended = loop.Event()
        self._control: loop.Socket | None = None
        self._child: Child | None = None
        self.questions: dict[bytes, Callable[[bytes], Awaitable[bytes]]] = {}
        """What the child may ask on its way (its record's first word) -> who answers with the word it waits for."""

    @classmethod
    def attach(cls, exec_id: str, pid: int, pidfd: int, started: bool) -> "ContainerProcess":
        """A process that another one has created and will reap; -1 for `pidfd` when it has ended. Takes the descriptor over."""
        process = cls(exec_id, True, Given(Stdio(True)))
        process.pid, process.started = pid, started
        if pidfd < 0:
            process._ends(UNKNOWN_STATUS)
        else:
            process._pidfd = loop.Fd(pidfd)
            loop.spawn(process._watch(), name=f"watch {pid}")
        return process

    @property
    def pidfd(self) -> int:
        """The number of its pidfd, which stays this object's; -1 once it is closed."""
        return -1 if self._pidfd is None else self._pidfd.fileno()

    # set-up

    def start_by(self, control: socket.socket) -> None:
        """Take over a connection to the socket that an attached process awaits its start on."""
        self._control = loop.Socket.of(control)

    def control_pair(self) -> socket.socket:
        """Make the control socket; the child's end."""
        ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = loop.Socket.of(ours)
        return other

    def fork(
        self,
        plan: ChildPlan,
        steps: tuple[child.Step, ...],
        flags: int,
        cgroup: int | None,
        opened: list[int],
        affinity: tuple[int, ...] = (),
    ) -> None:
        """Start the child. `opened` are descriptors that the plan uses and the child must keep until exec.

        `affinity` are the processors on which it is born: before its cgroup has a say.
        """
        self._prepare(plan, opened)
        if plan.owner:
            self.stdio.give_to(plan.owner)
        own = _change_processors(affinity) if affinity else ()
        try:
            with p.SignalsBlocked():
                self.pid, pidfd = p.clone3(flags, cgroup)
                if self.pid == 0:
                    child.run(plan, steps)
        finally:
            if own:
                os.sched_setaffinity(0, own)
        self._adopt(pidfd)
        self.stdio.close_child_ends()

    async def fork_within(
        self,
        plan: ChildPlan,
        steps: tuple[child.Step, ...],
        flags: int,
        cgroup: int | None,
        opened: list[int],
        namespaces: list[tuple[int, int]],
    ) -> None:
        """Start the child from within namespaces that exist, by way of a short-lived process that joins them. Raises StepFailed.

        Who the program's user is outside shows only then: the streams are given by `own_streams`.
        """
        self._prepare(plan, opened)
        # From inside a cgroup namespace that is joined the group may be out of reach: the one between is born in it then.
        between_there = any(kind == p.CLONE_NEWCGROUP for _fd, kind in namespaces)
        with p.SignalsBlocked():
            pid, pidfd = p.clone3(0, cgroup if between_there else None)
            if pid == 0:
                child.run_within(plan, steps, flags, None if between_there else cgroup, namespaces)
        between = reaper.adopt(pid, pidfd)
        os.close(plan.control)
        opened.remove(plan.control)
        try:
            record, fds = await self._receive(SETUP_SECONDS)
        finally:
            await end_child(between)
        if not record.startswith(b"born ") or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise await self._failure(record)
        self.pid = int(record.split()[1])
        self._adopt(fds[0])

    def _prepare(self, plan: ChildPlan, opened: list[int]) -> None:
        plan.stdio = self.stdio.child_fds
        plan.preserved, plan.start_socket = self._given.preserved, self._given.start_socket
        kept = {plan.control, plan.start_socket, procfs.handle(), *opened, *self.stdio.child_fds, *plan.preserved}
        plan.keep = sorted(kept - {-1})

    def own_streams(self, owner: int) -> None:
        """Give the streams to the program's user, as the agent sees it, after `fork_within`."""
        if owner:
            self.stdio.give_to(owner)
        self.stdio.close_child_ends()

    def _adopt(self, pidfd: int) -> None:
        self._pidfd = loop.Fd(pidfd)
        self._child = None if self._given.left else reaper.adopt(self.pid, pidfd)
        loop.spawn(self._watch(), name=f"watch {self.pid}")

    def tell(self, word: bytes) -> None:
        """Send the child its next word."""
        assert self._control is not None
        try:
            self._control.send(word)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is gone; what it had to say is still to be read

    async def created(self, patience: float | None = 0.0) -> None:
        """Wait until the child is contained and waits for its start. Raises StepFailed.

        `patience` are the seconds that hooks may take on top of the set-up's own; None: without end.
        """
        record = await self._next(patience)
        if record != b"created":
            raise await self._failure(record)

    async def start(self, hooks: bool = False, patience: float | None = 0.0) -> None:
        """Let the program run; returns when exec has happened. Raises StepFailed.

        `hooks`: it has hooks to run before, which take up to `patience` more seconds; None: without end.
        """
        self.tell(b"start")
        record = await self._next(patience)
        if hooks and record == b"hooked":
            record = await self._next(0.0)
        elif hooks and not record:
            raise StepFailed("run startContainer hooks", f"the child has ended (status {await self._status()})")
        assert self._control is not None
        self._control.close()
        self._control = None
        if record:
            raise await self._failure(record)
        self.started = True

    async def _next(self, patience: float | None) -> bytes:
        """The child's next record that is not a question; b"" when it has executed its program, or died."""
        while True:
            record, fds = await self._receive(None if patience is None else SETUP_SECONDS + patience)
            for fd in fds:
                self.stdio.take_master(fd)
            answer = self.questions.get(record.partition(b" ")[0])
            if answer is not None:
                self.tell(await answer(record))
            elif record != b"terminal":
                return record

    async def _receive(self, seconds: float | None) -> tuple[bytes, list[int]]:
        control = self._control
        assert control is not None
        while True:
            try:
                return passed_fds.receive_fds(control, RECORD, 1)
            except BlockingIOError:
                try:
                    with loop.timeout(seconds):
                        await loop.readable(control)
                except TimeoutError as error:
                    raise StepFailed("contain", f"the child is not done within {seconds} s", errno.ETIMEDOUT) from error
            except (ConnectionResetError, loop.DescriptorClosed):
                return b"", []

    async def _failure(self, record: bytes) -> StepFailed:
        return failure(record, None if record else await self._status())

    async def _status(self) -> int | None:
        """The exit status of a child whose end of the socket is closed: it is about to end. None for one that does not."""
        try:
            with loop.timeout(ENDING_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass
        return self.exit_status

    # end

    async def _watch(self) -> None:
        assert self._pidfd is not None
        try:
            await loop.exited(self._pidfd)
        except loop.DescriptorClosed:
            return  # somebody has seen its end already
        while self._pidfd is not None and self._collect() is None:
            # A process of the container's traces it (ptrace(2)): it has ended, but can be reaped only when its tracer has let go of it.
            await loop.sleep(TRACED_SECONDS)

    def _collect(self) -> int | None:
        if self.exit_status is None:
            status = reaper.collect(self._child) if self._child is not None else self._status_of_anothers()
            if status is not None:
                self._ends(status)
        return self.exit_status

    def _status_of_anothers(self) -> int | None:
        """Of a process that is not reaped here, only that it has ended is known."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return UNKNOWN_STATUS if poll.poll(0) else None

    def _ends(self, status: int) -> None:
        mark("program runs and ends")
        self.exit_status = status
        self.stdio.process_ended()
        self._ended.set()

    async def wait(self) -> int:
        """The exit status, when the process has ended: 0..255, 128 + n for signal n."""
        await self._ended.wait()
        assert self.exit_status is not None
        return self.exit_status

    def signal(self, signum: int) -> None:
        """Send a signal. One to a process that has ended is an error of the caller's. Raises WrongState."""
        try:
            p.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError as error:
            raise WrongState(f"process {self.exec_id!r} has ended") from error

    async def kill(self) -> None:
        """End it whatever it does, and wait until it is reaped. Raises StepFailed for one that the kernel does not let go of."""
        if self.pid and self.exit_status is None:
            try:
                p.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                with loop.timeout(KILL_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                raise StepFailed("kill", f"process {self.pid} has not ended {KILL_SECONDS} s after SIGKILL", errno.ETIMEDOUT) from None

    def close(self) -> None:
        """Give all descriptors back, after the end."""
        self.stdio.close()
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._pidfd is not None:
            self._pidfd.close()
            self._pidfd = None

    # streams

    async def read_stdout(self, size: int) -> bytes:
        """See Stdio."""
        return await self.stdio.read_stdout(size)

    async def read_stderr(self, size: int) -> bytes:
        """See Stdio."""
        return await self.stdio.read_stderr(size)

    async def write_stdin(self, data: bytes) -> int:
        """See Stdio."""
        return await self.stdio.write_stdin(data)

    def close_stdin(self) -> None:
        """See Stdio."""
        self.stdio.close_stdin()

    def resize(self, rows: int, columns: int) -> None:
        """See Stdio."""
        self.stdio.resize(rows, columns)


def _change_processors(wanted: tuple[int, ...]) -> set[int]:
    """Run on other processors from now on; those before. Raises Refused."""
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, wanted)
    except OSError as error:
        raise Refused("process.execCPUAffinity.initial", f"none of these processors is here: {error.strerror}") from error
    return own
