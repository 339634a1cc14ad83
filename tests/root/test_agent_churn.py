"""A thousand rounds of exec, close and cancel at random leave an agent as it was: descriptors, mounts, processes, memory."""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from innkeeper.client import Agent, RpcError, connect
from innkeeper.image.proto import process_to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb.empty_pb2 import Empty
from tests.needs import needs
from tests.root.agent_kit import NativeAgent, native_agent, shim_document

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "module:prctl", "module:pyseccomp")]

ROUNDS = 1000
CLIENTS = 4
WARM = 100
KILL = 9
GROWTH = 6 << 20
"""Bytes that the allocator may keep of so many calls at once."""
SERVICE = "grpc.AgentService"
GONE = (status.NOT_FOUND, status.FAILED_PRECONDITION, status.DEADLINE_EXCEEDED)


class Round:
    """One process, `number` of one client, in container `box`: made, used and ended in one of several ways."""

    def __init__(self, address: str, agent: Agent, number: str, chance: random.Random) -> None:
        self.address, self.agent, self.id, self.chance = address, agent, number, chance

    def run(self) -> None:
        self.chance.choice((self.ends, self.closes_under_a_writer, self.gives_up, self.hangs_up, self.cancels_the_exec))()

    def _exec(self, *args: str, seconds: float = 60) -> None:
        process = process_to_proto({"args": list(args), "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}})
        request = pb.ExecProcessRequest(container_id="box", exec_id=self.id, process=process)
        self.agent.client.call(SERVICE, "ExecProcess", request, Empty, seconds)

    def _end(self) -> None:
        """Kill it and fetch its status, as a shim does with what it gives up."""
        for step in (lambda: self.agent.signal_process("box", self.id, KILL), lambda: self.agent.wait_process("box", self.id, 60)):
            _allowed(step)

    def ends(self) -> None:
        self._exec("echo", "x")
        assert self.agent.read_stdout("box", self.id, 10) == b"x\n"
        assert self.agent.wait_process("box", self.id, 60) == 0

    def closes_under_a_writer(self) -> None:
        """CloseStdin from another connection while a write waits for a reader."""
        self._exec("sleep", "1000")
        with connect(self.address, 10) as other, ThreadPoolExecutor(1) as pool:
            request = pb.WriteStreamRequest(container_id="box", exec_id=self.id, data=bytes(2 << 20))
            writing = pool.submit(_allowed, lambda: other.call(SERVICE, "WriteStdin", request, pb.WriteStreamResponse, 60))
            self.agent.close_stdin("box", self.id)
            self._end()
            writing.result(60)

    def gives_up(self) -> None:
        """Deadlines of reads and waits."""
        self._exec("sleep", "1000")
        read = pb.ReadStreamRequest(container_id="box", exec_id=self.id, len=10)
        for method in ("ReadStdout", "ReadStderr"):
            _allowed(lambda method=method: self.agent.client.call(SERVICE, method, read, pb.ReadStreamResponse, 0.002))  # type: ignore[misc]
        self._end()

    def hangs_up(self) -> None:
        """The connection goes while calls wait."""
        self._exec("cat")
        with connect(self.address, 10) as other:
            read = pb.ReadStreamRequest(container_id="box", exec_id=self.id, len=10)
            with pytest.raises((RpcError, TimeoutError)):
                other.call(SERVICE, "ReadStdout", read, pb.ReadStreamResponse, 0.002)
        self._end()

    def cancels_the_exec(self) -> None:
        try:
            self._exec("sleep", "1000", seconds=self.chance.choice((0.001, 0.005, 0.02)))
        except (RpcError, TimeoutError):
            pass
        self._end()


def _allowed(step: Callable[[], object]) -> None:
    """What a client that gives up must reckon with."""
    try:
        step()
    except TimeoutError:
        pass
    except RpcError as error:
        if error.code not in GONE:
            raise


def churn(address: str, rounds: int, seed: int) -> None:
    """So many rounds, by several clients at once."""

    def one(client: int) -> None:
        chance = random.Random(seed * 100 + client)
        with connect(address, 10) as connection:
            agent = Agent(connection)
            for number in range(rounds // CLIENTS):
                Round(address, agent, f"e{seed}-{client}-{number}", chance).run()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(CLIENTS)))


def gauge(guest: NativeAgent) -> tuple[int, str, int, int]:
    """(descriptors, mounts, children, processes that are known) of the agent."""
    pid = guest.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(os.listdir(f"/proc/{pid}/fd")), guest.mounts, len(children), len(guest.agent.list_processes("box"))


def resident(guest: NativeAgent) -> int:
    return int(Path(f"/proc/{guest.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_rounds_leave_nothing(container_root: Path, tmp_path: Path) -> None:
    with native_agent(tmp_path) as guest:
        guest.sandbox()
        guest.start("box", shim_document(container_root, "sleep", "100000"))
        churn(guest.address, WARM, 1)
        before, memory = _settled(guest, None), resident(guest)
        churn(guest.address, ROUNDS, 2)
        assert _settled(guest, before) == before
        assert resident(guest) - memory < GROWTH
        assert "Traceback" not in guest.log
        guest.agent.remove_container("box")


def _settled(guest: NativeAgent, wanted: tuple[int, str, int, int] | None) -> tuple[int, str, int, int]:
    """The gauge when it is what is wanted, or has not changed for a while."""
    deadline = time.monotonic() + 20
    last, since = gauge(guest), time.monotonic()
    while time.monotonic() < deadline:
        now = gauge(guest)
        if now == wanted or (wanted is None and now == last and time.monotonic() - since > 1):
            return now
        if now != last:
            last, since = now, time.monotonic()
    return last
