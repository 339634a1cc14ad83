"""Child processes and their exit statuses: one table pid -> owner, each status taken once.

An owner waits on its pidfd and takes the status by `collect`. PID 1 also calls `sweep` on SIGCHLD.
That looks each zombie up before reaping it: statuses of owned children are recorded for the owner,
orphans are reaped and counted. If `sweep` comes first, `collect` returns the recorded status.
"""

import os

from agent.linux.process import P_PIDFD, wait_status


class Child:
    """A child process with an owner. `status` is the shell's number (0..255) once collected."""

    __slots__ = ("pid", "pidfd", "status")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.status: int | None = None


class Reaper:
    """The table of owned children. `orphans` counts those that were reaped without an owner."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self.orphans = 0

    def __len__(self) -> int:
        return len(self._children)

    def adopt(self, pid: int, pidfd: int) -> Child:
        """Enter a child into the table. The caller keeps the pidfd."""
        child = Child(pid, pidfd)
        self._children[pid] = child
        return child

    def collect(self, child: Child, *, block: bool = False) -> int | None:
        """Return the status of a child that has ended, or None while it runs (unless `block`)."""
        if child.status is None:
            info = os.waitid(P_PIDFD, child.pidfd, os.WEXITED | (0 if block else os.WNOHANG))
            if info is not None and info.si_pid:
                self._record(child, info)
        return child.status

    def sweep(self) -> None:
        """Reap all zombies. Record the statuses of owned children, count all others as orphans."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None or not info.si_pid:
                return
            child = self._children.get(info.si_pid)
            os.waitid(os.P_PID, info.si_pid, os.WEXITED)
            if child is None:
                self.orphans += 1
            else:
                self._record(child, info)

    def _record(self, child: Child, info: "os.waitid_result") -> None:
        child.status = wait_status(info)
        self._children.pop(child.pid, None)


reaper = Reaper()
