"""One process of a container, from the fork to its exit status, as the parent sees it."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable

from agent import loop
from agent.container.control_socket import ControlSocket
from agent.container.init import child, child_error
from agent.container.init.plan import ChildPlan
from agent.container.process_io import DEFAULT_IO, ProcessIO
from agent.container.stdio import Stdio
from agent.container.step_times import mark
from agent.errors import StepFailed, WrongState
from agent.linux import process as p
from agent.linux import procfs
from agent.linux.reaper import Child, reaper
from agent.loop.children import kill

KILL_SECONDS = 30.0
ENDING_SECONDS = 1.0
TRACED_SECONDS = 0.02
# A child that is stopped, or hangs in its set-up, must not block its caller forever.
SETUP_SECONDS = 60.0
UNKNOWN_STATUS = -1
"""The exit status of a process that another process reaps."""


class ContainerProcess:
    """A process of a container. `pid` and `pidfd` are the agent's view of it.

    `exit_status` is the shell's number once the process has ended.
    """

    def __init__(self, exec_id: str, terminal: bool, io: ProcessIO = DEFAULT_IO) -> None:
        self.exec_id = exec_id
        self.terminal = terminal
        self.pid = 0
        self._pidfd: loop.Fd | None = None
        self.started = False
        self.exit_status: int | None = None
        self.stdio = io.stdio or Stdio(terminal)
        self._io = io
        self._ended = loop.Event()
        self._control: ControlSocket | None = None
        self._child: Child | None = None
        self.request_handlers: dict[bytes, Callable[[bytes], Awaitable[bytes]]] = {}
        """Handlers of the child's requests, by the first word of the record.

        A handler returns the answer, which the child waits for.
        """

    @classmethod
    def attach(cls, exec_id: str, pid: int, pidfd: int, started: bool) -> "ContainerProcess":
        """Return a process that another process has created and will reap. Takes over `pidfd`.

        `pidfd` is -1 if the process has ended.
        """
        process = cls(exec_id, True, ProcessIO(Stdio(True), detached=True))
        process.pid, process.started = pid, started
        if pidfd < 0:
            process._set_ended(UNKNOWN_STATUS)
        else:
            process._adopt(pidfd)
        return process

    @property
    def pidfd(self) -> int:
        """The number of the pidfd, which this object owns. -1 once it is closed."""
        return -1 if self._pidfd is None else self._pidfd.fileno()

    # set-up

    def use_start_connection(self, control: socket.socket) -> None:
        """Take over a connection to the start socket of an attached process."""
        self._control = ControlSocket(control)

    def control_pair(self) -> int:
        """Make the control socket and return the descriptor of the child's end of it."""
        self._control, other = ControlSocket.pair()
        return other

    def fork(self, plan: ChildPlan, fds: list[int]) -> None:
        """Fork the child, which runs the plan.

        `fds` are descriptors that the plan uses and the child must keep until exec.
        """
        self._prepare(plan, fds)
        if plan.owner:
            self.stdio.chown(plan.owner)
        with p.SignalsBlocked():
            self.pid, pidfd = p.clone3(plan.clone_flags, plan.cgroup)
            if self.pid == 0:
                child.run(plan)
        self._adopt(pidfd)
        self.stdio.close_child_ends()

    async def fork_via_intermediate(self, plan: ChildPlan, fds: list[int], namespaces: list[tuple[int, int]]) -> None:
        """Fork the child inside existing namespaces. Raises StepFailed.

        A short-lived intermediate process joins them and forks the child as its sibling. Which uid
        the program's user has outside is known only after that, so the caller then calls
        `chown_stdio`.
        """
        self._prepare(plan, fds)
        # Inside a cgroup namespace that is joined the cgroup may be out of reach. The intermediate
        # process is then created in the cgroup, and the child inherits it.
        cgroup = None
        if any(kind == p.CLONE_NEWCGROUP for _fd, kind in namespaces):
            cgroup, plan.cgroup = plan.cgroup, None
        with p.SignalsBlocked():
            pid, pidfd = p.clone3(0, cgroup)
            if pid == 0:
                child.run_intermediate(plan, namespaces)
        intermediate = reaper.adopt(pid, pidfd)
        os.close(plan.control)
        fds.remove(plan.control)
        try:
            record = await self._adopt_forked(SETUP_SECONDS)
        except BaseException:
            # The child may be there already. Adopted, it is killed and reaped by the caller.
            await loop.shield(self._adopt_if_forked())
            raise
        finally:
            await loop.shield(kill(intermediate, loop.Fd(pidfd), "intermediate"))
        if not self.pid:
            raise await self._failure(record)

    async def _adopt_forked(self, seconds: float) -> bytes:
        """Adopt what the intermediate process has forked. Return its record. Raises StepFailed."""
        assert self._control is not None
        record, fds = await self._control.receive(seconds)
        if record.startswith(b"forked ") and len(fds) == 1:
            self.pid = int(record.split()[1])
            self._adopt(fds.pop())
        for fd in fds:
            os.close(fd)
        return record

    async def _adopt_if_forked(self) -> None:
        """Give the intermediate process the time to end what it has begun, and adopt its child.

        If it were killed at once, nobody might know of a child that it has just forked.
        """
        try:
            await self._adopt_forked(ENDING_SECONDS)
        except (StepFailed, OSError):
            pass  # the first error is the caller's

    def _prepare(self, plan: ChildPlan, fds: list[int]) -> None:
        plan.stdio = self.stdio.child_fds
        plan.preserved, plan.start_socket = self._io.preserved, self._io.start_socket
        keep = {plan.control, plan.start_socket, procfs.handle(), *fds, *self.stdio.child_fds, *plan.preserved}
        plan.keep = sorted(keep - {-1})

    def chown_stdio(self, owner: int) -> None:
        """Make the program's user the owner of the streams, after `fork_via_intermediate`.

        `owner` is its uid as the agent sees it.
        """
        if owner:
            self.stdio.chown(owner)
        self.stdio.close_child_ends()

    def _adopt(self, pidfd: int) -> None:
        self._pidfd = loop.Fd(pidfd)
        self._child = None if self._io.detached else reaper.adopt(self.pid, pidfd)
        loop.spawn(self._watch(), name=f"watch {self.pid}")

    def send(self, word: bytes) -> None:
        """Send the child one word."""
        assert self._control is not None
        self._control.send(word)

    async def wait_created(self, hooks_timeout: float | None = 0.0) -> None:
        """Wait until the child is contained and waits for its start. Raises StepFailed.

        `hooks_timeout` is that of the hooks in seconds, on top of the set-up's own. None: no
        timeout.
        """
        record = await self._next(hooks_timeout)
        if record != b"created":
            raise await self._failure(record)

    async def start(self, hooks: bool = False, hooks_timeout: float | None = 0.0) -> None:
        """Let the program run. Return when exec has happened. Raises StepFailed.

        With `hooks`, the child has startContainer hooks to run first. `hooks_timeout` is theirs in
        seconds, None for no timeout.
        """
        self.send(b"start")
        record = await self._next(hooks_timeout)
        if hooks and record == b"hooked":
            record = await self._next(0.0)
        elif hooks and not record:
            raise StepFailed("run startContainer hooks", f"the child has ended (status {await self._status()})")
        self._close_control()
        if record:
            raise await self._failure(record)
        self.started = True

    async def _next(self, hooks_timeout: float | None) -> bytes:
        """Return the child's next record that is not a request.

        Returns b"" when the child has executed its program, or died.
        """
        control = self._control
        assert control is not None
        while True:
            record, fds = await control.receive(None if hooks_timeout is None else SETUP_SECONDS + hooks_timeout)
            for fd in fds:
                self.stdio.set_pty_master(fd)
            handler = self.request_handlers.get(record.partition(b" ")[0])
            if handler is not None:
                control.send(await handler(record))
            elif record != b"terminal":
                return record

    async def _failure(self, record: bytes) -> StepFailed:
        return child_error.decode(record, None if record else await self._status())

    async def _status(self) -> int | None:
        """Return the exit status of a child whose end of the socket is closed: it is about to end.

        Returns None if it does not end within ENDING_SECONDS.
        """
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
            return  # closed: its end has been seen already
        while self._pidfd is not None:
            # The status of a process that is not our child goes to the process that reaps it.
            status = UNKNOWN_STATUS if self._child is None else reaper.collect(self._child)
            if status is not None:
                self._set_ended(status)
                return
            # A process in the container traces it (ptrace(2)): it has ended, but can be reaped only
            # after its tracer has detached.
            await loop.sleep(TRACED_SECONDS)

    def _set_ended(self, status: int) -> None:
        mark("program runs and ends")
        self.exit_status = status
        self.stdio.process_ended()
        self._ended.set()

    async def wait(self) -> int:
        """Wait until the process has ended, and return its exit status.

        The status is 0..255, 128 + n for signal n.
        """
        await self._ended.wait()
        assert self.exit_status is not None
        return self.exit_status

    def signal(self, signum: int) -> None:
        """Send a signal. Raises WrongState if the process has ended."""
        try:
            p.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError as error:
            raise WrongState(f"process {self.exec_id!r} has ended") from error

    async def kill(self) -> None:
        """Kill the process and wait until it is reaped.

        Callers that wait for one that never began are answered too: a failed exec has been in the
        table of processes. Raises StepFailed if the kernel has not let go of it after KILL_SECONDS.
        """
        if self.exit_status is not None:
            return
        if self.pid:
            p.kill(self.pidfd)
            try:
                with loop.timeout(KILL_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                raise StepFailed("kill", f"process {self.pid} has not ended {KILL_SECONDS} s after SIGKILL", errno.ETIMEDOUT) from None
        else:
            self._set_ended(UNKNOWN_STATUS)

    def close(self) -> None:
        """Close all descriptors, after the process has ended."""
        self.stdio.close()
        self._close_control()
        if self._pidfd is not None:
            self._pidfd.close()
            self._pidfd = None

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
