"""Rounds of exec, close and cancel at random, for an agent wherever it runs: in tests/root/agent and in tests/vm."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from innkeeper.client import Agent, RpcError, connect
from innkeeper.image.proto import process_to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb.empty_pb2 import Empty

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
