"""Measured operations on an agent, in a guest or beside runc.

They consist of the RPCs that a shim calls.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures import Section, figure, throughput
from innkeeper.client import Agent
from innkeeper.dial import dial
from innkeeper.errors import InnkeeperError
from innkeeper.image import process_to_proto, to_proto
from innkeeper.wire.connection import CLIENT, Connection
from innkeeper.wire.envelope import Request
from innkeeper.wire.pb import agent_pb2, health_pb2

READ_BYTES = 1 << 20
WRITE_BYTES = 512 << 10


class Containers:
    """Containers of one agent, all with the same `document` except for their arguments."""

    def __init__(self, agent: Agent, document: Mapping[str, Any]) -> None:
        self.agent = agent
        self.document = document
        self._number = 0

    def create(self, container_id: str, document: Mapping[str, Any], storages: Sequence[agent_pb2.Storage] = ()) -> None:
        """Create and start a container (CreateContainer, StartContainer)."""
        self.agent.create_container(
            agent_pb2.CreateContainerRequest(
                container_id=container_id, exec_id=container_id, storages=storages, OCI=to_proto(dict(document))
            )
        )
        self.agent.start_container(container_id)

    def run(self, container_id: str, document: Mapping[str, Any], storages: Sequence[agent_pb2.Storage] = ()) -> None:
        """Create and start a container, wait for its end and remove it.

        Raises InnkeeperError unless its status is 0.
        """
        self.create(container_id, document, storages)
        status = self.agent.wait_process(container_id, container_id, timeout=60)
        self.agent.remove_container(container_id)
        if status:
            raise InnkeeperError(f"the measured container ended with status {status}")

    def exec(self, container_id: str, args: Sequence[str] = ("/bin/true",)) -> None:
        """Run a process in a container and wait for its end.

        Raises InnkeeperError unless its status is 0.
        """
        self._ended(container_id, self._exec(container_id, args))

    def _exec(self, container_id: str, args: Sequence[str]) -> str:
        self._number += 1
        exec_id = f"exec-{self._number}"
        process = {**self.document["process"], "args": list(args)}
        self.agent.exec_process(container_id, exec_id, process_to_proto(process))
        return exec_id

    def _ended(self, container_id: str, exec_id: str) -> None:
        status = self.agent.wait_process(container_id, exec_id, timeout=60)
        if status:
            raise InnkeeperError(f"the measured process ended with status {status}")

    def stdout(self, container_id: str, size: int) -> float:
        """Return the MB/s of reading `size` bytes of a process's output, to its end."""
        start = time.perf_counter()
        exec_id = self._exec(container_id, ["/bin/dd", "if=/dev/zero", "bs=1M", f"count={size >> 20}"])
        received = 0
        while data := self.agent.read_stdout(container_id, exec_id, READ_BYTES):
            received += len(data)
        self._ended(container_id, exec_id)
        if received != size:
            raise InnkeeperError(f"{received} bytes of output came instead of {size}")
        return size / 1e6 / (time.perf_counter() - start)

    def stdin(self, container_id: str, size: int) -> float:
        """Return the MB/s of writing `size` bytes to a process, until it has ended."""
        data = bytes(WRITE_BYTES)
        start = time.perf_counter()
        exec_id = self._exec(container_id, ["/bin/dd", "of=/dev/null", "bs=1M"])
        sent = 0
        while sent < size:
            sent += self.agent.write_stdin(container_id, exec_id, data[: size - sent])
        self.agent.close_stdin(container_id, exec_id)
        self._ended(container_id, exec_id)
        return size / 1e6 / (time.perf_counter() - start)


def library_round_trips(agent: Agent, count: int) -> list[float]:
    """Return the seconds that each of `count` consecutive Checks takes with the client library.

    Its answers are passed from the reader thread to the caller's thread.
    """
    times = []
    for _ in range(count):
        start = time.perf_counter()
        agent.check()
        times.append(time.perf_counter() - start)
    return times


def bare_round_trips(address: str, count: int) -> list[float]:
    """Return the seconds that each of `count` consecutive Checks takes on a socket of its own.

    There is only one thread, so this is the time of the agent and the transport alone.
    """
    request = Request("grpc.Health", "Check", health_pb2.CheckRequest().SerializeToString())
    times = []
    with dial(address, 10) as sock:
        connection = Connection(CLIENT)
        for _ in range(count):
            start = time.perf_counter()
            connection.send_request(request)
            sock.sendall(connection.data_to_send())
            while not connection.receive_data(_receive(sock)):
                pass
            times.append(time.perf_counter() - start)
    return times


def wire_section(
    title: str, containers: Containers, address: str, holder: str, megabytes: int, trips: int = 200, limit: float | None = None
) -> Section:
    """Return the section of calls and streams.

    `holder` is a running container, `limit` the microseconds for a Check.
    """
    size = megabytes << 20
    bare, library = bare_round_trips(address, trips), library_round_trips(containers.agent, trips)
    budget = "" if limit is None else f"at most {limit:g}"
    rows = [
        figure("round trip of Check", "us", [value * 1e6 for value in bare], budget, limit),
        figure("the same by the client library", "us", [value * 1e6 for value in library]),
        throughput("standard output", [containers.stdout(holder, size) for _ in range(3)]),
        throughput("standard input", [containers.stdin(holder, size) for _ in range(3)]),
    ]
    return Section(title, rows)


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(READ_BYTES)
    if not data:
        raise InnkeeperError("the agent closed the connection that was measured")
    return data
