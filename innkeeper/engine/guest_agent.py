"""The agent in a guest as the verbs use it: one connection, its processes, its figures. All waiting is done in the caller's thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from innkeeper.client import Agent, RpcError, connect
from innkeeper.engine.records import Container
from innkeeper.errors import InnkeeperError
from innkeeper.wire import status


@contextmanager
def connected(container: Container) -> Iterator[Agent]:
    """The agent in the guest of a running container; its refusals, and a guest that is gone, become InnkeeperError."""
    try:
        client = connect(container.address, timeout=15)
    except OSError as error:
        raise InnkeeperError(f"container {container.name}: its guest does not answer: {error}") from error
    with client:
        try:
            yield Agent(client)
        except RpcError as error:
            raise InnkeeperError(f"container {container.name}: {error.message}") from error


class Process:
    """One process in the guest, by container and exec id."""

    def __init__(self, agent: Agent, container_id: str, exec_id: str) -> None:
        self._agent = agent
        self._ids = (container_id, exec_id)

    def read_stdout(self, size: int) -> bytes:
        """The next bytes of its output; b"" at the end."""
        return self._agent.read_stdout(*self._ids, size)

    def read_stderr(self, size: int) -> bytes:
        """As read_stdout."""
        return self._agent.read_stderr(*self._ids, size)

    def write_stdin(self, data: bytes) -> int:
        """How many bytes it took, at least one. BrokenPipeError when it reads no more."""
        try:
            taken = self._agent.write_stdin(*self._ids, data)
        except RpcError as error:
            raise BrokenPipeError(error.message) from error
        if data and not taken:
            raise BrokenPipeError("the process takes no input")
        return taken

    def close_stdin(self) -> None:
        """End of file; no error if the process has already gone."""
        try:
            self._agent.close_stdin(*self._ids)
        except RpcError as error:
            if error.code != status.NOT_FOUND:
                raise

    def hold(self) -> None:
        """Let the agent know that the process is this connection's: when we are killed, or leave it running, it is released, so that
        no full pipe stops it and nothing of it stays in the guest."""
        threading.Thread(target=self._hold, name="hold", daemon=True).start()

    def _hold(self) -> None:
        try:
            self._agent.release_process(*self._ids, when_caller_goes=True)
        except RpcError:
            pass  # the connection has ended, the process was quicker, or this guest is of an older version

    def release(self) -> None:
        """Leave it to itself: its output goes nowhere, and nothing of it is kept once it has ended."""
        self._agent.release_process(*self._ids)

    def resize(self, rows: int, columns: int) -> None:
        """The size of its terminal."""
        self._agent.tty_win_resize(*self._ids, rows, columns)

    def signal(self, number: int) -> None:
        """Send it a signal; one that has already ended is no error."""
        try:
            self._agent.signal_process(*self._ids, number)
        except RpcError as error:
            if error.code != status.NOT_FOUND and "ESRCH" not in error.message:
                raise

    def wait(self) -> int:
        """Its exit status, 128+n when signal n ended it. Read its output to the end first."""
        return self._agent.wait_process(*self._ids)


def list_processes(agent: Agent, container_id: str) -> list[dict[str, Any]]:
    """The processes of a container, as the guest sees them."""
    names = ("pid", "parent_pid", "uid", "state", "cpu_time_ns", "resident_bytes", "started", "exec_id")
    found = agent.list_processes(container_id)
    return [{**{name: getattr(process, name) for name in names}, "args": list(process.args)} for process in found]


def oom_killed(agent: Agent, container_id: str) -> bool:
    """Return whether the kernel has ended a process of the container because memory ran out: its limit's, or the guest's."""
    try:
        return agent.stats_container(container_id).cgroup_stats.memory_stats.stats.get("oom_kill", 0) > 0
    except RpcError:
        return False  # the guest is gone: whoever owns it says why


def figures(agent: Agent, container_id: str) -> dict[str, Any]:
    """What the guest measures of a container, and its own boot."""
    cgroup = agent.stats_container(container_id).cgroup_stats
    boot = agent.boot_timeline()
    return {
        "memory_bytes": cgroup.memory_stats.usage.usage,
        "cpu_time_ns": cgroup.cpu_stats.cpu_usage.total_usage,
        "pids": cgroup.pids_stats.current,
        "agent_resident_bytes": boot.resident_bytes,
        "orphans_reaped": boot.orphans_reaped,
        "boot": {stage.name: stage.boottime_ns for stage in boot.stages},
    }
