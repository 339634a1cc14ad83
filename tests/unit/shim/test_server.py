"""The ttRPC server, its task service without a container, and the publisher of events, over real sockets."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from innkeeper.client import Client, RpcError
from innkeeper.dial import connect_unix, listen_unix
from innkeeper.shim.events import SERVICE, Publisher
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.pod import Pod
from innkeeper.shim.process import RUNNING, STOPPED, Process, Stdio
from innkeeper.shim.server import Server
from innkeeper.shim.task_service import METHODS, SERVICES, TaskService
from innkeeper.wire import status
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.pb import empty_pb2
from tests.eventually import eventually


@pytest.fixture
def publisher() -> Publisher:
    return Publisher("", "default")


@pytest.fixture
def served(tmp_path: Path, publisher: Publisher) -> Iterator[tuple[Path, threading.Thread]]:
    """The socket of a shim without containers, and the thread that serves it."""
    path = tmp_path / "s"
    service = TaskService(Pod("default", publisher, path))
    with listen_unix(path) as listener:
        server = Server(listener, service.handle, lambda: service.ended, lambda: False, 60)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield path, thread


@pytest.mark.parametrize("service", SERVICES)
def test_calls_without_a_container(served: tuple[Path, threading.Thread], service: str) -> None:
    path, thread = served
    with Client(connect_unix(str(path))) as client:
        for method in sorted(METHODS.keys() - {"Create", "Shutdown"}):
            given = METHODS[method].request(id="x", **({"stdin": True} if method == "CloseIO" else {}))
            with pytest.raises(RpcError, match="container x not found") as caught:
                client.call(service, method, given, empty_pb2.Empty, 10)
            assert caught.value.code == status.NOT_FOUND
        for name, method in ((service, "Checkpoint"), ("containerd.runtime.sandbox.v1.Sandbox", "Ping")):
            with pytest.raises(RpcError, match="is not implemented") as caught:
                client.call(name, method, empty_pb2.Empty(), empty_pb2.Empty, 10)
            assert caught.value.code == status.UNIMPLEMENTED
        client.call(service, "Shutdown", pb.ShutdownRequest(id="x"), empty_pb2.Empty, 10)
    thread.join(10)
    assert not thread.is_alive()


def test_a_server_that_nobody_uses_ends(tmp_path: Path) -> None:
    with listen_unix(tmp_path / "s") as listener:
        Server(listener, lambda request: Response(), lambda: False, lambda: True, 0.01).serve()


def test_events_arrive_in_order_although_containerd_is_away(tmp_path: Path) -> None:
    path = tmp_path / "events"
    publisher = Publisher(str(path), "default")
    sent = [pb.TaskStart(container_id="a", pid=7), *(pb.TaskOOM(container_id=str(number)) for number in range(20))]
    for event in sent:
        publisher.publish(event)
    received: list[pb.Envelope] = []

    def handle(request: Request) -> Response:
        assert (request.service, request.method) == (SERVICE, "Forward")
        received.append(pb.ForwardRequest.FromString(request.payload).envelope)
        return Response()

    with listen_unix(path) as listener:
        server = Server(listener, handle, lambda: len(received) == len(sent), lambda: False, 60)
        threading.Thread(target=server.serve, daemon=True).start()
        eventually(lambda: len(received) == len(sent))
        publisher.close()
    assert [envelope.event.value for envelope in received] == [event.SerializeToString() for event in sent]
    assert received[0].topic == "/tasks/start"
    assert received[0].event.type_url == "containerd.events.TaskStart"
    assert received[0].namespace == "default"


def test_an_exit_is_published_once_before_waiters_wake_and_after_the_start() -> None:
    seen: list[Any] = []
    process = Process(Stdio(), lambda ended: seen.append(ended.exit))
    waiter = threading.Thread(target=lambda: seen.append(process.wait()))
    waiter.start()
    with process.order:
        process.start()
        killer = threading.Thread(target=process.kill, args=(9, False))
        killer.start()
        assert process.status == RUNNING
        seen.append("start")
    killer.join()
    waiter.join()
    process.ended(1)
    assert process.exit is not None
    assert seen == ["start", process.exit, process.exit]
    assert (process.status, process.exit.status) == (STOPPED, 137)
