"""The agent as an ordinary process of its own namespaces, and requests like a shim's."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from innkeeper.client import Agent, RpcError, connect
from innkeeper.image.proto import process_to_proto, to_proto
from innkeeper.wire.pb import agent_pb2
from innkeeper.wire.pb.empty_pb2 import Empty
from tests.eventually import retry
from tests.paths import ROOT
from tests.root.container_helpers import PATH, Result, document

R = TypeVar("R")
START_SECONDS = 30.0


class Calls:
    """An agent by its client, and what tests ask of it again and again."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def call(self, method: str, request: Any, response: type[R], timeout: float = 60.0) -> R:
        return self.agent.client.call("grpc.AgentService", method, request, response, timeout)

    def do(self, method: str, request: Any, timeout: float = 60.0) -> None:
        """A call with an empty answer."""
        self.call(method, request, Empty, timeout)

    def refusal(self, method: str, request: Any) -> RpcError:
        """The error that a call must end with."""
        try:
            self.do(method, request)
        except RpcError as error:
            return error
        raise AssertionError(f"{method} was not refused")

    def sandbox(self, **fields: Any) -> None:
        self.agent.create_sandbox(agent_pb2.CreateSandboxRequest(sandbox_id="pod", **fields))

    def create(self, id: str, spec: Mapping[str, Any], **fields: Any) -> None:
        request = agent_pb2.CreateContainerRequest(container_id=id, exec_id=id, OCI=to_proto(spec), **fields)
        self.agent.create_container(request)

    def start(self, id: str, spec: Mapping[str, Any], **fields: Any) -> None:
        """Create and start."""
        self.create(id, spec, **fields)
        self.agent.start_container(id)

    def finish(self, id: str, exec_id: str = "") -> Result:
        """Read both streams to their ends and wait, as the shim does."""
        exec_id = exec_id or id
        out = read_to_end(lambda: self.agent.read_stdout(id, exec_id, 32768))
        err = read_to_end(lambda: self.agent.read_stderr(id, exec_id, 32768))
        return Result(out, err, self.agent.wait_process(id, exec_id, 60))

    def run(self, id: str, spec: Mapping[str, Any], **fields: Any) -> Result:
        """Create, start, read, wait, remove."""
        self.start(id, spec, **fields)
        try:
            return self.finish(id)
        finally:
            self.agent.remove_container(id)

    def exec(self, id: str, exec_id: str, *args: str, **fields: Any) -> Result:
        process = process_to_proto({"args": list(args), "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}, **fields})
        self.agent.exec_process(id, exec_id, process)
        return self.finish(id, exec_id)


class NativeAgent(Calls):
    """An agent outside of a guest: `process` is its outer process, which waits; `pid` is its own."""

    def __init__(self, agent: Agent, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        super().__init__(agent)
        self.process = process
        self.folder = folder

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/agent.sock"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self.folder / "agent.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    @property
    def root(self) -> Path:
        """Its root directory, with what it has mounted."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def mounts(self) -> str:
        """What is mounted where it runs."""
        return Path(f"/proc/{self.pid}/mounts").read_text()


def read_to_end(read: Any) -> str:
    parts = []
    while data := read():
        parts.append(data)
    return b"".join(parts).decode(errors="replace")


def shim_document(root: Path, *args: str) -> dict[str, Any]:
    """A specification as the shim sends it: the host's namespaces taken out, those that the sandbox shares left."""
    spec = document(root, *args)
    del spec["hostname"]
    spec["linux"]["namespaces"] = [{"type": kind} for kind in ("ipc", "uts", "mount")]
    return spec


@contextmanager
def native_agent(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[NativeAgent]:
    """An agent from the source tree, its socket and its log in `folder`; ended afterwards, and with it all that it made."""
    address = f"unix://{folder}/agent.sock"
    variables = {**os.environ, "KATA_AGENT_SERVER_ADDR": address, "PYTHONPATH": str(ROOT), **(env or {})}
    with (folder / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables
        )
    try:
        with connected(address, process, folder / "agent.log") as agent:
            yield NativeAgent(agent, process, folder)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def connected(address: str, process: "subprocess.Popen[bytes]", log: Path) -> Iterator[Agent]:
    """A client of the agent at `address`, as soon as it has loaded all that serves."""

    def alive() -> None:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]

    with retry(lambda: connect(address, 1), OSError, alive, START_SECONDS) as client:
        agent = Agent(client)
        client.call("grpc.AgentService", "GetGuestDetails", agent_pb2.GuestDetailsRequest(), agent_pb2.GuestDetailsResponse, START_SECONDS)
        yield agent
