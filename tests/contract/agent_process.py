"""The agent as a process of its own on a unix socket, and a client that speaks to it by bytes. No root needed."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from innkeeper.client import Client, connect
from innkeeper.wire.pb import agent_pb2, empty_pb2
from tests.contract.wire_helpers import answers, request_frame
from tests.eventually import eventually, pause
from tests.paths import ROOT

PATIENCE = 60.0
"""Seconds after which a test that waits has failed; no test expects anything within a time."""


class Raw:
    """A connection to the agent without any protocol. Sends block no longer than PATIENCE."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(path))  # without a time limit: with one, a full backlog is an error at once
        self.sock.settimeout(PATIENCE)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def read_frame(self) -> bytes:
        """One whole frame; an end of file before is an error."""
        header = self._exactly(10)
        return header + self._exactly(int.from_bytes(header[:4], "big"))

    def read_answer(self) -> tuple[int, int, str]:
        """(stream, code, message) of the next response."""
        return answers(self.read_frame())[0]

    def read_answers(self, count: int) -> list[tuple[int, int, str]]:
        return [self.read_answer() for _ in range(count)]

    def check(self, stream: int) -> None:
        """A Check that must be answered next."""
        self.send(request_frame(stream))
        assert self.read_frame() == CHECK_ANSWER[:4] + stream.to_bytes(4, "big") + CHECK_ANSWER[8:]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            assert piece, "the agent closed the connection"
            data += piece
        return data


CHECK_ANSWER = b"\x00\x00\x00\x04\x00\x00\x00\x01\x02\x00\x12\x02\x08\x01"
"""On stream 1: a response whose payload says SERVING."""


class AgentProcess:
    """A running agent. `pid` is the process that serves; as root that is a child, in namespaces of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: Path, log: Path) -> None:
        self._process = process
        self.path = path
        self.log_path = log
        self.pid = process.pid
        self.at_rest = 0
        """Descriptors that are open when there is no client."""

    def raw(self) -> Raw:
        return Raw(self.path)

    def client(self) -> Client:
        return connect(f"unix://{self.path}", PATIENCE)

    def wait_until_loaded(self) -> None:
        """Until calls other than Check are served."""
        eventually(lambda: self.path.exists() or not self.alive(), self.log, PATIENCE)
        assert self.alive(), self.log()
        with self.client() as client:
            client.call("grpc.AgentService", "GetGuestDetails", agent_pb2.GuestDetailsRequest(), agent_pb2.GuestDetailsResponse, PATIENCE)
        if os.geteuid() == 0:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            self.pid = int(children[0])
        while self.at_rest != (now := self.descriptors()):  # our client's connection is closed there some time after here
            self.at_rest = now
            pause(0.1, "the agent closes connections of its own accord")

    def alive(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def resident(self) -> int:
        """Bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS: the agent has ended")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_for_rest(self) -> None:
        """Until the agent has closed everything of its clients, which it does some time after they have."""
        eventually(
            lambda: self.descriptors() <= self.at_rest, lambda: f"{self.descriptors()} descriptors are open, not {self.at_rest}", PATIENCE
        )

    def end_sandbox(self) -> int:
        """Destroy the sandbox and wait for the agent's own end; its exit status."""
        with self.client() as client:
            client.call("grpc.AgentService", "DestroySandbox", agent_pb2.DestroySandboxRequest(), empty_pb2.Empty, PATIENCE)
        return self._process.wait(PATIENCE)


@contextmanager
def running_agent(folder: Path, command: Sequence[str] = ()) -> Iterator[AgentProcess]:
    """An agent, or what `command` makes one, whose socket and log are in `folder`; alive at the end, without an error of its own."""
    path, log = folder / "agent.sock", folder / "agent.log"
    environment = {**os.environ, "KATA_AGENT_SERVER_ADDR": f"unix://{path}", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(command) or [sys.executable, "-m", "agent"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=ROOT
        )
    agent = AgentProcess(process, path, log)
    try:
        agent.wait_until_loaded()
        yield agent
        assert process.poll() in (None, 0), agent.log()
        for word in ("Traceback", "never awaited", "ResourceWarning"):
            assert word not in agent.log(), agent.log()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
