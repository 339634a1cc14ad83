"""The agent as an ordinary process with a gRPC port on a unix socket, and clients for it. No virtual machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from innkeeper.client import Agent, connect
from innkeeper.wire.pb import guest_pb2
from tests.eventually import eventually
from tests.paths import ROOT

PATIENCE = 30.0
"""Seconds after which a test that waits has failed; no test expects anything within a time."""
GRPC_FOLDER = "/run/innkeeper"
"""As the agent sees it: its /run is its own."""


class GrpcAgent:
    """A running agent. `pid` is the process that serves, in namespaces of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self.process = process
        self.ttrpc_path = folder / "agent.sock"
        self.grpc_path = folder / "grpc.sock"
        self._log = folder / "agent.log"
        self.pid = 0

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_loaded(self) -> None:
        """Until it serves, the gRPC port included."""
        eventually(lambda: self.ttrpc_path.exists() or self.process.poll() is not None, self.log)
        with self.ttrpc() as agent:
            agent.guest_details()
        self.pid = int(children(self.process.pid)[0])

    @contextmanager
    def ttrpc(self) -> Iterator[Agent]:
        """The other way in."""
        with connect(f"unix://{self.ttrpc_path}", PATIENCE) as client:
            yield Agent(client)

    @contextmanager
    def channel(self, **options: Any) -> Iterator[grpc.Channel]:
        """A gRPC client's connection, with the Python client's own limits unless `options` (dots as double underscores) say otherwise."""
        with grpc.insecure_channel(f"unix:{self.grpc_path}", options=client_options(options)) as channel:
            yield channel

    def gateway(self) -> int | None:
        """The gateway's process id, if there is one."""
        for pid in children(self.pid):
            if b"agent.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        return None

    def kill_gateway(self) -> int:
        """Kill it and wait until the agent has noticed; its process id."""
        pid = self.gateway()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not os.path.exists(f"/proc/{pid}"), self.log)
        return pid

    def inside(self, path: str) -> Path:
        """A path of the agent's own mount namespace."""
        return Path(f"/proc/{self.pid}/root{path}")

    def descriptors(self) -> list[str]:
        """What the agent has open."""
        folder, found = f"/proc/{self.pid}/fd", []
        for fd in os.listdir(folder):
            try:
                found.append(os.readlink(f"{folder}/{fd}"))
            except FileNotFoundError:
                continue  # it has just been closed
        return found


def client_options(options: dict[str, Any]) -> list[tuple[str, Any]]:
    """Channel arguments. The default authority of a unix socket is its path, which some servers refuse."""
    return [("grpc.default_authority", "localhost"), *((f"grpc.{name}".replace("__", "."), value) for name, value in options.items())]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def unary(channel: grpc.Channel, method: str, message: Any, response_class: Any, **settings: Any) -> Any:
    """Call `/SERVICE/METHOD`; raises grpc.RpcError."""
    call = channel.unary_unary(method, request_serializer=type(message).SerializeToString, response_deserializer=response_class.FromString)
    return call(message, timeout=settings.pop("timeout", PATIENCE), **settings)


def attach(channel: grpc.Channel, requests: "Iterator[guest_pb2.AttachRequest]") -> Any:
    """Begin Guest.Attach: an iterator of answers that is also the call."""
    call = channel.stream_stream(
        "/innkeeper.v1.Guest/Attach",
        request_serializer=guest_pb2.AttachRequest.SerializeToString,
        response_deserializer=guest_pb2.AttachResponse.FromString,
    )
    return call(requests, timeout=PATIENCE)


@contextmanager
def running_agent(folder: Path) -> Iterator[GrpcAgent]:
    """An agent whose sockets and log are in `folder`. It must be alive at the end and have had no error of its own."""
    environment = {
        **os.environ,
        "KATA_AGENT_SERVER_ADDR": f"unix://{folder}/agent.sock",
        "INNKEEPER_GRPC_ADDR": f"unix://{folder}/grpc.sock",
        "PYTHONPATH": str(ROOT),
    }
    with (folder / "agent.log").open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, cwd=ROOT
        )
    agent = GrpcAgent(process, folder)
    try:
        agent.wait_until_loaded()
        yield agent
        assert process.poll() is None, agent.log()
        log = agent.log()
        for word in ("never awaited", "ResourceWarning"):
            assert word not in log, log
        # grpcio prints one of its own when a client goes just before its status is sent
        assert log.count("Traceback") == log.count("ExecuteBatchError"), log
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
