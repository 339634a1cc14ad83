"""Copy a container process's standard streams to and from descriptors of this process."""

import os
import threading

from innkeeper.client.agent import Agent
from innkeeper.client.client import RpcError
from innkeeper.wire import status

READ_SIZE = 1 << 20
WRITE_SIZE = 512 << 10


def copy_streams(agent: Agent, container_id: str, exec_id: str, *, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
    """Copy the streams of a process and return when its outputs have ended.

    A `stdin` of None is closed at once, and an output of None is not read. A daemon thread reads
    stdin. It outlives the call while its read blocks. The descriptors stay the caller's. Raises the
    exception of the first output that failed.
    """
    failures: list[Exception] = []

    def out(read: "object", descriptor: int) -> None:
        try:
            while data := read(container_id, exec_id, READ_SIZE):  # type: ignore[operator]
                _write_all(descriptor, data)
        except (RpcError, OSError) as error:
            failures.append(error)

    def feed(descriptor: int) -> None:
        try:
            while data := os.read(descriptor, WRITE_SIZE):
                view = memoryview(data)
                while view:
                    view = view[agent.write_stdin(container_id, exec_id, bytes(view)) :]
            agent.close_stdin(container_id, exec_id)
        except (RpcError, OSError):
            pass  # the process no longer reads, or has ended: its outputs and status show it

    if stdin is None:
        _close(agent, container_id, exec_id)
    else:
        threading.Thread(target=feed, args=(stdin,), name="stdin", daemon=True).start()
    outputs = [(agent.read_stdout, stdout), (agent.read_stderr, stderr)]
    threads = [threading.Thread(target=out, args=pair, name="output", daemon=True) for pair in outputs if pair[1] is not None]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _close(agent: Agent, container_id: str, exec_id: str) -> None:
    try:
        agent.close_stdin(container_id, exec_id)
    except RpcError as error:
        if error.code != status.NOT_FOUND:
            raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
