"""The agent of a guest as the commands use it: one connection, its processes, its statistics.

All waiting happens in the caller's thread.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from innkeeper.client import Agent, RpcError, connect
from innkeeper.engine.records import Container
from innkeeper.errors import InnkeeperError
from innkeeper.wire import error_info, status

if TYPE_CHECKING:
    from innkeeper.vm import VirtualMachine
    from innkeeper.vm.pooled import PooledVm

PROGRAM_STEPS = ("find program", "execute program", "enter working directory", "enter working directory as user")
"""The agent's names for the steps that fail if the command is at fault."""
CAUSE_SECONDS = 3.0
"""Seconds to wait for the cause of a lost connection: a kernel panic, or the end of QEMU."""
CONNECT_SECONDS = 15.0
"""Seconds until an agent that has answered before counts as gone."""
END_SECONDS = 10.0
"""Seconds that a guest gets to end its sandbox, and to power off if its answer is lost."""
NOT_FOUND, CANNOT_INVOKE = 127, 126
"""The exit statuses that a shell, and docker, use for these failures."""


@contextmanager
def connected(container: Container) -> Iterator[Agent]:
    """Context manager: connect to the agent in the guest of a running container.

    Raises InnkeeperError if the guest does not answer, and turns an RpcError of the `with` block
    into one.
    """
    try:
        client = connect(container.address, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise InnkeeperError(f"container {container.name}: its guest does not answer: {error}") from error
    with client:
        try:
            yield Agent(client)
        except RpcError as error:
            raise InnkeeperError(f"container {container.name}: {error.message}") from error


def agent_error(error: RpcError) -> InnkeeperError:
    """Return the agent's error as an InnkeeperError.

    A command that cannot be run gets the exit status that a shell would give.
    """
    if error.reason != error_info.STEP_FAILED or error.metadata.get("step") not in PROGRAM_STEPS:
        return InnkeeperError(error.message)
    return InnkeeperError(error.message, exit_status=NOT_FOUND if error.metadata.get("errno") == "ENOENT" else CANNOT_INVOKE)


def cause(vm: "VirtualMachine | PooledVm", error: Exception) -> InnkeeperError:
    """Return the cause of `error`: the agent's error, or what ended the guest.

    A lost connection is only a symptom. The panic's text, or QEMU's exit status, may show up a
    little later, so wait for it, up to CAUSE_SECONDS.
    """
    if isinstance(error, RpcError) and not error.lost:
        return agent_error(error)
    until = time.monotonic() + CAUSE_SECONDS
    while time.monotonic() < until:
        if (failure := vm.failure()) is not None:
            return failure
        time.sleep(0.05)
    return InnkeeperError(f"the connection to the guest's agent was lost: {error}")


class Process:
    """One process in the guest, identified by container id and exec id."""

    def __init__(self, agent: Agent, container_id: str, exec_id: str) -> None:
        self._agent = agent
        self._ids = (container_id, exec_id)

    def read_stdout(self, size: int) -> bytes:
        """Return the next bytes of its output, or b"" at the end."""
        return self._agent.read_stdout(*self._ids, size)

    def read_stderr(self, size: int) -> bytes:
        """Return the next bytes of its standard error, or b"" at the end."""
        return self._agent.read_stderr(*self._ids, size)

    def write_stdin(self, data: bytes) -> int:
        """Write to its standard input. Return how many bytes it took, at least one.

        Raises BrokenPipeError if the process reads no more.
        """
        try:
            taken = self._agent.write_stdin(*self._ids, data)
        except RpcError as error:
            raise BrokenPipeError(error.message) from error
        if data and not taken:
            raise BrokenPipeError("the process takes no input")
        return taken

    def close_stdin(self) -> None:
        """Close its standard input. It is no error if the process has already ended."""
        try:
            self._agent.close_stdin(*self._ids)
        except RpcError as error:
            if error.code != status.NOT_FOUND:
                raise

    def hold(self) -> None:
        """Tie the process to this connection, in a thread of its own.

        The agent releases the process when the connection ends, whether this process is killed or
        leaves it running. Otherwise a full pipe would block the process for ever and its state
        would stay in the guest.
        """
        threading.Thread(target=self._hold, name="hold", daemon=True).start()

    def _hold(self) -> None:
        try:
            self._agent.release_process(*self._ids, when_caller_goes=True)
        except RpcError:
            pass  # the connection or the process has ended, or the guest is of an older version

    def release(self) -> None:
        """Detach the process: the agent discards its output, and its state once it has ended."""
        self._agent.release_process(*self._ids)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        self._agent.tty_win_resize(*self._ids, rows, columns)

    def signal(self, number: int) -> None:
        """Send a signal to the process. It is no error if the process has already ended."""
        try:
            self._agent.signal_process(*self._ids, number)
        except RpcError as error:
            if error.code != status.NOT_FOUND:
                raise

    def wait(self) -> int:
        """Return its exit status, or 128+n if signal n ended it.

        Read its output to the end first.
        """
        return self._agent.wait_process(*self._ids)


def destroy_sandbox(agent: Agent) -> float:
    """Have the guest unmount the host's folders, and so write what it still has of their files.

    Return the seconds that QEMU may take to end by itself. With the answer nothing is left to wait
    for. Without one the guest is gone, or powers off already.
    """
    try:
        agent.destroy_sandbox()
    except RpcError as error:
        return END_SECONDS if error.lost else 0
    return 0


def list_processes(agent: Agent, container_id: str) -> list[dict[str, Any]]:
    """Return the processes of a container, with pids as the guest sees them."""
    names = ("pid", "parent_pid", "uid", "state", "cpu_time_ns", "resident_bytes", "started", "exec_id")
    found = agent.list_processes(container_id)
    return [{**{name: getattr(process, name) for name in names}, "args": list(process.args)} for process in found]


def oom_killed(agent: Agent, container_id: str) -> bool:
    """Return whether the kernel killed a process of the container because memory ran out.

    It does not matter whether the container's limit was reached or the guest's memory was
    exhausted.
    """
    try:
        return agent.stats_container(container_id).cgroup_stats.memory_stats.stats.get("oom_kill", 0) > 0
    except RpcError:
        return False  # the guest is gone: the process that owns it reports why


def statistics(agent: Agent, container_id: str) -> dict[str, Any]:
    """Return the guest's statistics of a container, and the timeline of its boot.

    Memory in bytes, times in nanoseconds.
    """
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
