"""gRPC calls to a real agent, and the life of the process between: started late, killed, started again, alone with its rights."""

import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.linux.process import CLONE_NEWNS, setns
from innkeeper.wire.grpc import MAX_MESSAGE
from innkeeper.wire.pb import agent_pb2, empty_pb2, guest_pb2, health_pb2
from tests.eventually import eventually
from tests.forked import forked
from tests.root.grpc.grpc_helpers import GRPC_FOLDER, PATIENCE, GrpcAgent, running_agent, unary

pytestmark = pytest.mark.root

CHECK = "/grpc.Health/Check"
SERVING = 1


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcAgent]:
    with running_agent(tmp_path_factory.mktemp("agent")) as agent:
        with agent.channel() as channel:  # the first process makes the agent open what it keeps
            check(channel)
            start_process(channel, "first", "/bin/cat")
            kill_process(channel, "first")
        yield agent


@pytest.fixture
def agent(shared: GrpcAgent) -> Iterator[GrpcAgent]:
    """One agent for all. After each test it has as many descriptors open as before, but for the gateway's."""
    with shared.channel() as channel:
        check(channel)
    rest = settled(shared)
    yield shared
    eventually(lambda: len(shared.descriptors()) <= rest, lambda: f"{rest} before: {shared.descriptors()}")


def settled(agent: GrpcAgent) -> int:
    """How many descriptors are open once our last client's connection is closed there too: the one pipe left is the loop's own."""
    eventually(lambda: sum(name.startswith("pipe:") for name in agent.descriptors()) == 2, lambda: str(agent.descriptors()))
    return len(agent.descriptors())


def check(channel: grpc.Channel) -> int:
    return int(unary(channel, CHECK, health_pb2.CheckRequest(), health_pb2.HealthCheckResponse, wait_for_ready=True).status)


def served(agent: GrpcAgent) -> bool:
    """Whether a new client's call is answered; False when its connection broke."""
    try:
        with agent.channel(use_local_subchannel_pool=1) as channel:
            return check(channel) == SERVING
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        return False


def start_process(channel: grpc.Channel, exec_id: str, *args: str, **fields: Any) -> None:
    """In the guest itself, which outside of a machine is the agent's own namespaces."""
    request = guest_pb2.StartShellRequest(exec_id=exec_id, args=args, env=["PATH=/usr/bin:/bin"], **fields)
    unary(channel, "/innkeeper.v1.Guest/StartShell", request, empty_pb2.Empty)


def agent_call(channel: grpc.Channel, method: str, message: Any, response_class: Any = empty_pb2.Empty, **settings: Any) -> Any:
    return unary(channel, f"/grpc.AgentService/{method}", message, response_class, **settings)


def wait_request(exec_id: str) -> agent_pb2.WaitProcessRequest:
    return agent_pb2.WaitProcessRequest(container_id="guest", exec_id=exec_id)


def kill_process(channel: grpc.Channel, exec_id: str) -> int:
    request = agent_pb2.SignalProcessRequest(container_id="guest", exec_id=exec_id, signal=signal.SIGKILL)
    agent_call(channel, "SignalProcess", request)
    return int(agent_call(channel, "WaitProcess", wait_request(exec_id), agent_pb2.WaitProcessResponse).status)


def waiting_call(channel: grpc.Channel, exec_id: str) -> Any:
    """A WaitProcess in flight."""
    call = channel.unary_unary("/grpc.AgentService/WaitProcess", response_deserializer=agent_pb2.WaitProcessResponse.FromString)
    return call.future(wait_request(exec_id).SerializeToString(), timeout=PATIENCE)


def test_nothing_is_there_before_the_first_connection(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        with agent.ttrpc() as ttrpc:
            assert ttrpc.check() == SERVING
        assert agent.gateway() is None
        assert not agent.inside(GRPC_FOLDER).exists()
        with agent.channel() as channel:
            assert check(channel) == SERVING
        assert agent.gateway() is not None
        assert sorted(os.listdir(agent.inside(GRPC_FOLDER))) == ["agent.sock", "grpc.sock"]


def test_grpcio_is_never_in_the_agent(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        timeline = unary(channel, "/innkeeper.v1.Guest/BootTimeline", empty_pb2.Empty(), guest_pb2.BootTimelineResponse)
    assert timeline.threads == 1
    assert "cygrpc" not in Path(f"/proc/{agent.pid}/maps").read_text()
    assert "cygrpc" in Path(f"/proc/{agent.gateway()}/maps").read_text()


def test_refusals_are_those_of_ttrpc(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        for message, code, text in (
            (agent_pb2.StartContainerRequest(container_id="nobody"), grpc.StatusCode.NOT_FOUND, "container 'nobody' not found"),
            (agent_pb2.SignalProcessRequest(signal=99), grpc.StatusCode.INVALID_ARGUMENT, "signal: 99 is not a signal"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                agent_call(channel, type(message).__name__.removesuffix("Request"), message)
            assert (caught.value.code(), text in caught.value.details()) == (code, True)
        ((key, value),) = caught.value.trailing_metadata()
        assert key == "grpc-status-details-bin"
        assert all(word in value for word in (b"google.rpc.ErrorInfo", b"REFUSED", b"field\x12\x06signal"))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.AgentService/StartContainer")(b"\xff", timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_cancelled_read_takes_no_output(agent: GrpcAgent) -> None:
    """The agent gives the read up, so what comes later is the next reader's."""
    with agent.channel() as channel:
        start_process(channel, "late", "/bin/cat")
        ids = {"container_id": "guest", "exec_id": "late"}
        request = agent_pb2.ReadStreamRequest(**ids, len=100)
        with pytest.raises(grpc.RpcError) as caught:
            agent_call(channel, "ReadStdout", request, agent_pb2.ReadStreamResponse, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        read = channel.unary_unary("/grpc.AgentService/ReadStdout").future(request.SerializeToString(), timeout=PATIENCE)
        read.cancel()
        agent_call(channel, "WriteStdin", agent_pb2.WriteStreamRequest(**ids, data=b"whole"), agent_pb2.WriteStreamResponse)
        assert agent_call(channel, "ReadStdout", request, agent_pb2.ReadStreamResponse).data == b"whole"
        assert kill_process(channel, "late") == 137


def test_four_mebibytes_into_a_process(agent: GrpcAgent) -> None:
    data = os.urandom(MAX_MESSAGE - 64)
    with agent.channel() as channel, ThreadPoolExecutor(1) as pool:
        start_process(channel, "bulk", "/bin/cat")
        ids = {"container_id": "guest", "exec_id": "bulk"}
        request = agent_pb2.WriteStreamRequest(**ids, data=data)
        padding = MAX_MESSAGE - request.ByteSize()
        request.data = data + b"x" * padding
        assert request.ByteSize() == MAX_MESSAGE
        write = pool.submit(agent_call, channel, "WriteStdin", request, agent_pb2.WriteStreamResponse)
        received = b""
        while len(received) < len(request.data):
            wanted = agent_pb2.ReadStreamRequest(**ids, len=1 << 20)
            received += agent_call(channel, "ReadStdout", wanted, agent_pb2.ReadStreamResponse).data
        assert write.result(PATIENCE).len == len(request.data)
        assert received == request.data
        assert kill_process(channel, "bulk") == 137


def test_many_connections_and_calls_at_once(agent: GrpcAgent) -> None:
    def one(_: int) -> int:
        with agent.channel(use_local_subchannel_pool=1) as channel:
            return sum(check(channel) for _ in range(10))

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(60))) == [10 * SERVING] * 60


def test_a_killed_gateway_costs_its_calls_alone(agent: GrpcAgent) -> None:
    with agent.channel() as channel, agent.ttrpc() as ttrpc:
        start_process(channel, "survivor", "/bin/cat")
        own = waiting_call(channel, "survivor")
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(ttrpc.wait_process, "guest", "survivor", PATIENCE)
            killed = agent.kill_gateway()
            with pytest.raises(grpc.RpcError) as caught:
                own.result(PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not other.done()
            assert check(channel) == SERVING, "the client's next call, by itself on a new connection"
            assert agent.gateway() not in (None, killed)
            ids = {"container_id": "guest", "exec_id": "survivor"}
            agent_call(channel, "WriteStdin", agent_pb2.WriteStreamRequest(**ids, data=b"alive"), agent_pb2.WriteStreamResponse)
            assert ttrpc.read_stdout("guest", "survivor", 10) == b"alive"
            ttrpc.signal_process("guest", "survivor", signal.SIGTERM)
            assert other.result(PATIENCE) == 143


def test_it_is_started_anew_each_time(agent: GrpcAgent) -> None:
    """A call that comes while it ends may fail; the client's next attempt does not have to know."""
    seen = {agent.gateway()}
    for signum in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL):
        pid = agent.gateway()
        assert pid is not None
        os.kill(pid, signum)
        eventually(lambda: served(agent), agent.log)
        seen.add(agent.gateway())
    assert len(seen) == 5


def test_one_that_does_not_listen_is_replaced(agent: GrpcAgent) -> None:
    """As after an end that the agent has not seen yet."""
    path = agent.inside(f"{GRPC_FOLDER}/grpc.sock")
    before = agent.gateway()
    path.unlink()
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(str(path))  # bound, and nobody listens: what connects is refused
    dead.close()
    with agent.channel() as channel:
        assert check(channel) == SERVING
    assert agent.gateway() not in (None, before)


def test_what_it_gave_up(agent: GrpcAgent) -> None:
    pid = agent.gateway()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Umask"]) == ("1", "0177")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{agent.pid}/ns/net")
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment if entry} == {
        *(b"PATH", b"PYTHONPATH", b"GRPC_ENABLE_FORK_SUPPORT", b"GRPC_VERBOSITY")
    }


def test_the_sockets_are_root_s_alone(agent: GrpcAgent) -> None:
    folder = agent.inside(GRPC_FOLDER)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("agent.sock", "grpc.sock"):
        entry = (folder / name).stat()
        assert (stat.S_IMODE(entry.st_mode), entry.st_uid, entry.st_gid) == (0o600, 0, 0)
    unix = Path(f"/proc/{agent.pid}/net/unix").read_text() + Path(f"/proc/{agent.gateway()}/net/unix").read_text()
    assert not [line for line in unix.splitlines() if line.rpartition(" ")[2].startswith("@")], "an abstract name has no mode"


def test_nobody_but_the_gateway_may_call_back(agent: GrpcAgent) -> None:
    """Root from elsewhere reaches the socket, and is closed before it is read from."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(agent.inside(f"{GRPC_FOLDER}/agent.sock")))
        assert sock.recv(1) == b""
    eventually(lambda: "is not the gateway: refused" in agent.log(), agent.log)


def test_another_user_reaches_neither(agent: GrpcAgent) -> None:
    """Even inside the agent's own mounts."""

    def body() -> None:
        mounts = os.open(f"/proc/{agent.pid}/ns/mnt", os.O_RDONLY)
        setns(mounts, CLONE_NEWNS)
        assert sorted(os.listdir(GRPC_FOLDER)) == ["agent.sock", "grpc.sock"]
        os.setresuid(65534, 65534, 65534)
        for name in ("agent.sock", "grpc.sock"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, pytest.raises(PermissionError):
                sock.connect(f"{GRPC_FOLDER}/{name}")

    forked(body)


def test_half_a_connection_preface_and_garbage(agent: GrpcAgent) -> None:
    """The gateway closes what is no HTTP/2, or waits for the rest of it; others are served."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as half, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as garbage:
        for sock in (half, garbage):
            sock.settimeout(PATIENCE)
            sock.connect(str(agent.grpc_path))
        half.sendall(b"PRI * HTTP/2.0\r\n")
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        while garbage.recv(1 << 16):
            pass
        with agent.channel() as channel:
            assert check(channel) == SERVING


def test_a_client_that_goes_at_once_leaves_nothing(agent: GrpcAgent) -> None:
    pid = agent.gateway()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    threads = []
    for _ in range(30):
        thread = threading.Thread(target=_connect_and_go, args=(agent.grpc_path,))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    with agent.channel() as channel:
        assert check(channel) == SERVING


def _connect_and_go(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(path))
