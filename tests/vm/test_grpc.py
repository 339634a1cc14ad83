"""gRPC of a booted guest as its user has it: `proxy` before vsock, the real grpcurl, and the gateway killed in the middle of a call."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from innkeeper.image.proto import process_to_proto
from innkeeper.wire.pb import agent_pb2, empty_pb2, guest_pb2, health_pb2, oci_pb2
from tests import grpcurl_helpers
from tests.images import busybox_image
from tests.needs import needs
from tests.root.grpc.grpc_helpers import client_options
from tests.vm.command import ARGV, PATIENCE, detached, environment, innkeeper, inspected, succeed

pytestmark = [pytest.mark.vm, needs("busybox", "mke2fs", "go")]


@pytest.fixture(scope="module")
def image() -> str:
    return busybox_image()


@contextmanager
def proxied(name: str, *options: str) -> Iterator[str]:
    """The socket that `proxy` prints. Afterwards it is interrupted, and must have left nothing."""
    process = subprocess.Popen([*ARGV, "proxy", name, *options], stdout=subprocess.PIPE, env=environment(), text=True)
    assert process.stdout is not None
    with process.stdout:
        path = process.stdout.readline().strip()
        assert path and Path(path).is_socket()
        try:
            yield path
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 128 + signal.SIGINT
    assert not Path(path).exists()


def processes(name: str, words: Sequence[str]) -> list[str]:
    """Lines of the guest's ps with one of the words in them."""
    lines = succeed("shell", name, "ps", "-o", "pid,vsz,args").splitlines()
    return [line for line in lines if any(word in line for word in words)]


def check(channel: grpc.Channel) -> int:
    call = channel.unary_unary("/grpc.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString)
    return int(call(b"", timeout=PATIENCE, wait_for_ready=True).status)


def test_grpcurl_through_the_proxy(image: str, tmp_path: Path) -> None:
    with detached(image, "sleep", "1000") as id, proxied(id, "--socket", str(tmp_path / "guest.sock")) as socket:
        assert socket == str(tmp_path / "guest.sock")
        listed = grpcurl_helpers.call(socket, "list")
        assert {"grpc.AgentService", "grpc.Health", "innkeeper.v1.Guest"} <= set(listed.stdout.split()), listed.stderr
        assert "rpc WaitProcess" in grpcurl_helpers.call(socket, "describe", "grpc.AgentService").stdout
        told = grpcurl_helpers.call(socket, "innkeeper.v1.Guest/ListContainers")
        containers = json.loads(told.stdout)["containers"]
        assert [(entry["id"], entry["status"]) for entry in containers] == [(id, "running")]
        late = grpcurl_helpers.call(socket, "grpc.AgentService/GetOOMEvent", options=("-max-time", "3"))
        assert "DeadlineExceeded" in late.stderr


def test_a_stream_of_each_kind_and_long_messages(image: str) -> None:
    """Four connections at once, each with output of a process of its own, and a message of 4 MiB into the guest."""
    with detached(image, "sleep", "1000") as id, proxied(id) as socket:

        def run(number: int) -> int:
            options = client_options({"use_local_subchannel_pool": 1})
            with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
                name = f"cat{number}"
                process = agent_process(["sh", "-c", "head -c 300000 /dev/zero; cat"])
                request = agent_pb2.ExecProcessRequest(container_id=id, exec_id=name, process=process)
                channel.unary_unary("/grpc.AgentService/ExecProcess")(request.SerializeToString(), timeout=PATIENCE)
                messages = [
                    guest_pb2.AttachRequest(process=guest_pb2.AttachRequest.Process(container_id=id, exec_id=name)),
                    guest_pb2.AttachRequest(stdin=b"x" * 200_000),
                    guest_pb2.AttachRequest(close_stdin=empty_pb2.Empty()),
                ]
                attach = channel.stream_stream(
                    "/innkeeper.v1.Guest/Attach",
                    request_serializer=guest_pb2.AttachRequest.SerializeToString,
                    response_deserializer=guest_pb2.AttachResponse.FromString,
                )
                answers = list(attach(iter(messages), timeout=PATIENCE))
                assert answers[-1].WhichOneof("output") == "exit_status" and answers[-1].exit_status == 0
                return sum(len(answer.stdout) for answer in answers)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(run, range(4))) == [500_000] * 4
        with grpc.insecure_channel(f"unix:{socket}", options=client_options({"max_send_message_length": -1})) as channel:
            long = health_pb2.CheckRequest(service="x" * ((4 << 20) - 5)).SerializeToString()
            assert len(long) == 4 << 20
            channel.unary_unary("/grpc.Health/Check")(long, timeout=PATIENCE)
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/grpc.Health/Check")(long + b"\x0a\x00", timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def agent_process(args: list[str]) -> oci_pb2.Process:
    return process_to_proto({"args": args, "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}})


def test_killing_the_gateway_costs_its_call_alone(image: str) -> None:
    """The debug guest's shell shows the processes, and kills."""
    with detached(image, "sleep", "1000", options=["--debug-guest"]) as id, proxied(id) as socket:
        assert processes(id, ["innkeeper/gateway"]) == [], "nobody has called yet"
        assert mapped(id) == 0
        with grpc.insecure_channel(f"unix:{socket}", options=client_options({})) as channel:
            assert check(channel) == 1
            (first,) = processes(id, ["innkeeper/gateway"])
            assert mapped(id) == 0, "grpcio is never in PID 1"
            wait = agent_pb2.WaitProcessRequest(container_id=id, exec_id=id).SerializeToString()
            call = channel.unary_unary("/grpc.AgentService/WaitProcess").future(wait, timeout=PATIENCE)
            assert check(channel) == 1, "it answers while the call waits"
            assert not call.done()
            succeed("shell", id, "kill", "-9", first.split()[0])
            with pytest.raises(grpc.RpcError) as caught:
                call.result(PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert check(channel) == 1, "another one has been started"
            (second,) = processes(id, ["innkeeper/gateway"])
            assert second.split()[0] != first.split()[0]
        assert succeed("exec", id, "echo", "alive") == "alive\n"
        assert inspected(id)["status"] == "running"


def mapped(name: str) -> int:
    """How often grpcio's library is mapped by PID 1."""
    done = innkeeper("shell", name, "grep", "-c", "cygrpc", "/proc/1/maps")
    return int(re.sub(rb"\D", b"", done.stdout) or 0)


def test_the_proxy_ends_with_its_guest(image: str, tmp_path: Path) -> None:
    path = tmp_path / "guest.sock"
    with detached(image, "sleep", "1000") as id:
        process = subprocess.Popen([*ARGV, "proxy", id, "-s", str(path)], stdout=subprocess.PIPE, env=environment(), text=True)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline().strip() == str(path)
            second = innkeeper("proxy", id, "-s", str(path))
            assert (second.returncode, b"is in use" in second.stderr) == (125, True)
            succeed("rm", "-f", id)
            assert process.wait(PATIENCE) == 0
        assert not path.exists()
    gone = innkeeper("proxy", id)
    assert (gone.returncode, b"no such container" in gone.stderr) == (125, True)
