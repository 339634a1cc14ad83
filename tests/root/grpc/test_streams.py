"""Attach and Events: a process's streams and what happens to containers, as gRPC streams; and the real grpcurl as their client."""

import hashlib
import json
import os
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from innkeeper.image.proto import process_to_proto, to_proto
from innkeeper.wire.pb import agent_pb2, empty_pb2, guest_pb2
from innkeeper.wire.pb.guest_pb2 import AttachRequest, Event
from tests import grpcurl_helpers
from tests.eventually import eventually
from tests.needs import needs
from tests.root.container_helpers import busybox_root, document
from tests.root.grpc.grpc_helpers import PATIENCE, GrpcAgent, attach, running_agent, unary

pytestmark = pytest.mark.root

END = None


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcAgent]:
    with running_agent(tmp_path_factory.mktemp("agent")) as running:
        yield running


class Attached:
    """One Attach call, with its input as methods."""

    def __init__(self, channel: grpc.Channel, exec_id: str, container_id: str = "guest") -> None:
        self._queue: queue.SimpleQueue[AttachRequest | None] = queue.SimpleQueue()
        self.send(process=AttachRequest.Process(container_id=container_id, exec_id=exec_id))
        self.call = attach(channel, iter(self._queue.get, END))

    def send(self, **field: Any) -> None:
        self._queue.put(AttachRequest(**field))

    def close_stdin(self) -> None:
        self.send(close_stdin=empty_pb2.Empty())

    def half_close(self) -> None:
        self._queue.put(END)

    def rest(self) -> tuple[bytes, bytes, list[tuple[int, str]], int]:
        """(stdout, stderr, refusals, exit status) up to the end."""
        stdout, stderr, refused, status = b"", b"", [], -1
        for answer in self.call:
            assert status == -1, "nothing follows the exit status"
            kind = answer.WhichOneof("output")
            if kind == "exit_status":
                status = answer.exit_status
            elif kind == "refused":
                refused.append((answer.refused.code, answer.refused.message))
            stdout += answer.stdout
            stderr += answer.stderr
        self.half_close()
        return stdout, stderr, refused, status

    def until(self, text: bytes) -> None:
        """Read output until `text` has come."""
        seen = b""
        while text not in seen:
            answer = next(self.call)
            seen += answer.stdout + answer.stderr


def start(channel: grpc.Channel, exec_id: str, *args: str, **fields: Any) -> None:
    request = guest_pb2.StartShellRequest(exec_id=exec_id, args=args, env=["PATH=/usr/bin:/bin"], **fields)
    unary(channel, "/innkeeper.v1.Guest/StartShell", request, empty_pb2.Empty)


def attached(channel: grpc.Channel, exec_id: str, *args: str, **fields: Any) -> Attached:
    """A new process of the guest, and its streams."""
    start(channel, exec_id, *args, **fields)
    return Attached(channel, exec_id)


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return caught.value.code(), caught.value.details()


def test_streams_apart_and_the_exit_status_last(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        process = attached(channel, "apart", "/bin/sh", "-c", "cat; echo error >&2; exit 7")
        process.send(stdin=b"in")
        process.send(stdin=b"")
        process.send(stdin=b"put")
        process.close_stdin()
        assert process.rest() == (b"input", b"error\n", [], 7)


def test_bytes_arrive_whole_whoever_is_slower(agent: GrpcAgent) -> None:
    data = os.urandom(1 << 20)
    with agent.channel() as channel:
        process = attached(channel, "whole", "/bin/cat")

        def feed() -> None:
            for _ in range(24):
                process.send(stdin=data)
            process.close_stdin()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(feed)
            stdout, stderr, refused, status = process.rest()
    assert (len(stdout), stderr, refused, status) == (24 << 20, b"", [], 0)
    assert hashlib.sha256(stdout).digest() == hashlib.sha256(data * 24).digest()


def test_output_that_nobody_takes_stays_with_the_process(agent: GrpcAgent) -> None:
    """The process is stopped by its full pipe; neither the agent nor the gateway holds what the client does not read."""
    with agent.channel() as channel:
        process = attached(channel, "flood", "/bin/sh", "-c", "exec yes")
        process.until(b"y\n")
        gateway = agent.gateway()
        settle(gateway, agent.pid)
        assert (resident(gateway), resident(agent.pid)) < (120 << 20, 60 << 20)
        process.call.cancel()
        again = Attached(channel, "flood")
        again.until(b"y\ny\ny\n")
        again.send(signal=signal.SIGKILL)
        stdout, _, _, status = again.rest()
        assert (set(stdout), status) == (set(b"y\n"), 137)


def settle(*pids: int | None) -> None:
    """Until neither process uses the processor any more."""
    before: list[str] = []
    while before != (now := [" ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]) for pid in pids]):
        before = now
        wait = queue.SimpleQueue[None]()
        with pytest.raises(queue.Empty):
            wait.get(timeout=0.5)


def resident(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_goes_leaves_the_process(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        first = attached(channel, "left", "/bin/cat")
        first.send(stdin=b"one")
        first.until(b"one")
        first.call.cancel()
        second = Attached(channel, "left")
        second.send(stdin=b"two")
        second.close_stdin()
        assert second.rest() == (b"two", b"", [], 0)


def test_a_half_closed_call_is_no_end_of_input(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        process = attached(channel, "half", "/bin/cat")
        process.send(stdin=b"x")
        process.half_close()
        process.until(b"x")
        closer = agent_pb2.CloseStdinRequest(container_id="guest", exec_id="half")
        unary(channel, "/grpc.AgentService/CloseStdin", closer, empty_pb2.Empty)
        assert process.rest() == (b"", b"", [], 0)


def test_a_terminal_is_resized_and_has_no_stderr(agent: GrpcAgent) -> None:
    script = "trap 'stty size; exit 3' WINCH; stty size; echo >&2 ready; while :; do sleep 0.05; done"
    with agent.channel() as channel:
        process = attached(channel, "tty", "/bin/sh", "-c", script, terminal=True, rows=10, columns=20)
        process.until(b"ready")
        process.send(resize=AttachRequest.Size(rows=33, columns=44))
        stdout, stderr, refused, status = process.rest()
    assert (stdout.strip(), stderr, refused, status) == (b"33 44", b"", [], 3)


def test_refused_input_is_told_and_ends_nothing(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        process = attached(channel, "refusing", "/bin/sh", "-c", "exec <&-; trap 'exit 5' USR1; echo closed; while :; do sleep 0.05; done")
        process.until(b"closed")
        process.send(stdin=b"unread")
        process.send(resize=AttachRequest.Size(rows=1, columns=1))
        process.send(signal=99)
        process.send(signal=signal.SIGUSR1)
        stdout, _, refused, status = process.rest()
    assert [code for code, _ in refused] == [9, 9, 3]
    assert ["EPIPE" in refused[0][1], "terminal" in refused[1][1], "99" in refused[2][1]] == [True] * 3
    assert (stdout, status) == (b"", 5)


def test_calls_that_break_the_rules(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        assert failure(attach(channel, iter([AttachRequest(stdin=b"x")]))) == (
            *(grpc.StatusCode.INVALID_ARGUMENT, "process: must be the first message"),
        )
        assert failure(attach(channel, iter([])))[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert failure(Attached(channel, "nobody").call) == (grpc.StatusCode.NOT_FOUND, "Process not found: 'nobody' in the guest")
        process = attached(channel, "rules", "/bin/cat")
        process.send(process=AttachRequest.Process(container_id="guest", exec_id="rules"))
        assert failure(process.call) == (grpc.StatusCode.INVALID_ARGUMENT, "process: only the first message may name it")
        process = Attached(channel, "rules")
        process.send()
        assert failure(process.call)[0] is grpc.StatusCode.INVALID_ARGUMENT
        raw = channel.stream_stream("/innkeeper.v1.Guest/Attach")
        assert failure(raw(iter([b"\xff"]), timeout=PATIENCE))[0] is grpc.StatusCode.INVALID_ARGUMENT
        process = Attached(channel, "rules")
        process.close_stdin()
        assert process.rest()[3] == 0


def events(channel: grpc.Channel, **request: Any) -> Any:
    call = channel.unary_stream(
        "/innkeeper.v1.Guest/Events",
        request_serializer=guest_pb2.EventsRequest.SerializeToString,
        response_deserializer=Event.FromString,
    )
    return call(guest_pb2.EventsRequest(**request), timeout=PATIENCE)


@needs("busybox", "cgroup2")
def test_the_life_of_a_container(agent: GrpcAgent, tmp_path: Path) -> None:
    """Created, started, a second process, both ends, removed: in order, to two followers; then again to one that asks for the past."""
    root = busybox_root(tmp_path / "root")
    spec = document(root, "sh", "-c", "sleep 1000 & wait")
    second = {**spec["process"], "args": ["sh", "-c", "exit 4"]}

    def call(channel: grpc.Channel, method: str, message: Any, response_class: Any = empty_pb2.Empty) -> Any:
        return unary(channel, f"/grpc.AgentService/{method}", message, response_class)

    with agent.channel() as channel:
        followers = [events(channel), events(channel)]
        for follower in followers:
            assert follower.initial_metadata() is not None, "it is followed from here on"
        name = "box1"
        call(channel, "CreateSandbox", agent_pb2.CreateSandboxRequest(sandbox_id="pod"))
        call(channel, "CreateContainer", agent_pb2.CreateContainerRequest(container_id=name, exec_id=name, OCI=to_proto(spec)))
        call(channel, "StartContainer", agent_pb2.StartContainerRequest(container_id=name))
        request = agent_pb2.ExecProcessRequest(container_id=name, exec_id="second", process=process_to_proto(second))
        call(channel, "ExecProcess", request)
        waiting = agent_pb2.WaitProcessRequest(container_id=name, exec_id="second")
        assert call(channel, "WaitProcess", waiting, agent_pb2.WaitProcessResponse).status == 4
        call(channel, "SignalProcess", agent_pb2.SignalProcessRequest(container_id=name, signal=signal.SIGKILL))
        call(channel, "WaitProcess", agent_pb2.WaitProcessRequest(container_id=name, exec_id=name), agent_pb2.WaitProcessResponse)
        call(channel, "RemoveContainer", agent_pb2.RemoveContainerRequest(container_id=name))
        wanted = [
            (Event.CREATED, "", 0),
            (Event.STARTED, "", 0),
            (Event.STARTED, "second", 0),
            (Event.EXITED, "second", 4),
            (Event.EXITED, "", 137),
            (Event.REMOVED, "", 0),
        ]
        for follower in (*followers, events(channel, after=0)):
            seen = [next(follower) for _ in wanted]
            assert [(event.kind, event.exec_id, event.exit_status) for event in seen] == wanted
            assert {event.container_id for event in seen} == {name}
            assert [event.number for event in seen] == list(range(seen[0].number, seen[0].number + len(wanted)))
            follower.cancel()
        code, text = failure(events(channel, after=10**6))
        assert (code, text.startswith("after: ")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@needs("go")
def test_grpcurl_lists_describes_and_calls(agent: GrpcAgent) -> None:
    path = agent.grpc_path
    listed = grpcurl_helpers.call(path, "list").stdout.split()
    assert listed == [
        *("grpc.AgentService", "grpc.Health", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "innkeeper.v1.Guest"),
    ]
    for service in listed:
        assert f"{service} is a service:" in grpcurl_helpers.call(path, "describe", service).stdout
    assert "rpc Attach ( stream .innkeeper.v1.AttachRequest )" in grpcurl_helpers.call(path, "describe", "innkeeper.v1.Guest.Attach").stdout
    assert "string container_id = 1" in grpcurl_helpers.call(path, "describe", "grpc.WaitProcessRequest").stdout
    for service in ("grpc.Health", "grpc.health.v1.Health"):
        assert json.loads(grpcurl_helpers.call(path, f"{service}/Check").stdout) == {"status": "SERVING"}
    refused = grpcurl_helpers.call(path, "grpc.AgentService/PauseContainer", options=("-d", '{"container_id": "x"}'))
    assert (refused.returncode != 0, "Code: NotFound" in refused.stderr) == (True, True)
    late = grpcurl_helpers.call(path, "grpc.AgentService/GetOOMEvent", options=("-max-time", "0.5"))
    assert "DeadlineExceeded" in late.stderr


@needs("go")
def test_grpcurl_attaches(agent: GrpcAgent) -> None:
    with agent.channel() as channel:
        start(channel, "curled", "/bin/sh", "-c", "cat; exit 6")
    messages = '{"process": {"container_id": "guest", "exec_id": "curled"}} {"stdin": "aGVsbG8K"} {"close_stdin": {}}'
    done = grpcurl_helpers.call(agent.grpc_path, "innkeeper.v1.Guest/Attach", options=("-d", "@"), data=messages)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(part) for part in done.stdout.replace("}\n{", "}\0{").split("\0")]
    assert answers == [{"stdout": "aGVsbG8K"}, {"exitStatus": 6}]
    eventually(lambda: agent.process.poll() is None)
