"""The gateway's side of a call: what of gRPC reaches the agent, and what of the agent's answer the client."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.grpc import MAX_MESSAGE
from tests.root.grpc.fake_agent import HANG_UP, FakeAgent, gateway
from tests.root.grpc.grpc_helpers import PATIENCE, client_options

pytestmark = pytest.mark.root

METHOD = "/grpc.AgentService/CopyFile"


class Client:
    """Sends bytes as messages."""

    def __init__(self, agent: FakeAgent, path: Path) -> None:
        self.agent = agent
        options = {"max_send_message_length": -1}
        self.channel = grpc.insecure_channel(f"unix:{path}", options=client_options(options))

    def call(self, payload: bytes = b"", method: str = METHOD, **settings: Any) -> bytes:
        """The answer's bytes; raises grpc.RpcError."""
        answer: bytes = self.channel.unary_unary(method)(payload, **{"timeout": PATIENCE, **settings})
        return answer

    def fails(self, payload: bytes = b"", method: str = METHOD, **settings: Any) -> tuple[grpc.StatusCode, str]:
        """The status of a call that must fail."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(payload, method, **settings)
        return caught.value.code(), caught.value.details()


@pytest.fixture(scope="module")
def _client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with gateway(tmp_path_factory.mktemp("gateway"), lambda request: Response(payload=request.payload)) as (agent, path):
        client = Client(agent, path)
        yield client
        client.channel.close()


@pytest.fixture
def client(_client: Client) -> Client:
    """One gateway for all; its agent echoes unless the test says otherwise."""
    _client.agent.requests.clear()
    _client.agent.answering = lambda request: Response(payload=request.payload)
    return _client


def answering(client: Client, response: Response) -> None:
    client.agent.answering = lambda request: response


def only_request(client: Client) -> Request:
    (request,) = client.agent.requests
    return request


def test_bytes_names_and_nothing_else_are_passed_on(client: Client) -> None:
    payload = bytes(range(256)) * 3
    assert client.call(payload) == payload
    request = only_request(client)
    assert (request.service, request.method, request.payload) == ("grpc.AgentService", "CopyFile", payload)


def test_no_deadline_stays_none(client: Client) -> None:
    client.call(timeout=None)
    assert only_request(client).timeout_nano == 0


def test_the_agent_is_told_what_is_left_of_the_deadline(client: Client) -> None:
    """gRPC itself rounds it up on its way."""
    client.call(timeout=50.0)
    assert 0 < only_request(client).timeout_nano <= 51_000_000_000


def test_metadata_is_passed_on_but_not_grpc_s_own(client: Client) -> None:
    client.call(metadata=(("traceparent", "00-1-2-01"), ("twice", "a"), ("twice", "b"), ("blob-bin", b"\0\xff")))
    assert only_request(client).metadata == [("traceparent", "00-1-2-01"), ("twice", "a"), ("twice", "b"), ("blob-bin", "AP8=")]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: str(code.name))
def test_each_status_keeps_its_number_and_message(client: Client, code: grpc.StatusCode) -> None:
    message = "seccomp.names: 'ü' is\nnot 100 % known"
    answering(client, Response(code.value[0], message))
    assert client.fails() == (code, message)


@pytest.mark.parametrize("number", [17, 1000, -1])
def test_a_number_without_a_name_is_told(client: Client, number: int) -> None:
    answering(client, Response(number, "what is this"))
    assert client.fails() == (grpc.StatusCode.UNKNOWN, f"status {number}: what is this")


def test_an_error_without_text_stays_one(client: Client) -> None:
    answering(client, Response(13, ""))
    assert client.fails() == (grpc.StatusCode.INTERNAL, "")


def test_messages_of_four_mebibytes(client: Client) -> None:
    payload = b"x" * MAX_MESSAGE
    assert client.call(payload) == payload
    # gRPC refuses metadata at random between 8 and 16 KiB, its own of half a KiB included.
    assert client.call(payload, metadata=(("long", "y" * 7000),)) == payload


def test_a_longer_request_is_refused_and_the_connection_goes_on(client: Client) -> None:
    code, text = client.fails(b"x" * (MAX_MESSAGE + 1))
    assert (code, client.agent.requests) == (grpc.StatusCode.RESOURCE_EXHAUSTED, [])
    assert str(MAX_MESSAGE) in text
    assert client.call(b"short") == b"short"


def test_a_longer_answer_is_refused(client: Client) -> None:
    answering(client, Response(payload=b"x" * (MAX_MESSAGE + 1)))
    assert client.fails()[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_methods_never_reach_the_agent(client: Client) -> None:
    for method in ("/grpc.AgentService/Nonsense", "/nonsense.Service/Check", "/innkeeper.v1.Guest/"):
        assert client.fails(method=method)[0] is grpc.StatusCode.UNIMPLEMENTED
    assert client.agent.requests == []


def test_a_deadline_that_passes_ends_the_agent_s_call(client: Client) -> None:
    client.agent.answering = lambda request: None
    assert client.fails(timeout=0.2)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert client.agent.gone.acquire(timeout=PATIENCE)


def test_a_cancelled_call_ends_in_the_agent(client: Client) -> None:
    asked = threading.Event()

    def never(request: Request) -> None:
        asked.set()

    client.agent.answering = never
    call = client.channel.unary_unary(METHOD).future(b"", timeout=PATIENCE)
    assert asked.wait(PATIENCE)
    call.cancel()
    assert client.agent.gone.acquire(timeout=PATIENCE)
    assert call.code() is grpc.StatusCode.CANCELLED


def test_calls_that_wait_do_not_hold_up_others(client: Client) -> None:
    """A client waits for exits and outputs with many calls at once."""
    client.agent.answering = lambda request: None if request.payload else Response(payload=b"answer")
    waiting = [client.channel.unary_unary(METHOD).future(b"wait", timeout=PATIENCE) for _ in range(300)]
    assert client.call() == b"answer"
    for call in waiting:
        call.cancel()
    for _ in waiting:
        assert client.agent.gone.acquire(timeout=PATIENCE)


def test_an_agent_that_hangs_up_is_unavailable(client: Client) -> None:
    answering(client, HANG_UP)
    code, text = client.fails()
    assert (code, "the agent" in text) == (grpc.StatusCode.UNAVAILABLE, True)


def test_requests_in_flight_are_bounded_all_together(client: Client) -> None:
    client.agent.answering = lambda request: None if request.payload else Response()
    payload = b"x" * MAX_MESSAGE
    calls = [client.channel.unary_unary(METHOD).future(payload, timeout=PATIENCE) for _ in range(17)]
    refused = next(call for call in iter_done(calls))
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
    assert client.call() == b""


def iter_done(calls: list[Any]) -> Iterator[Any]:
    """The calls that end, as they do."""
    done = threading.Semaphore(0)
    for call in calls:
        call.add_done_callback(lambda _: done.release())
    while done.acquire(timeout=PATIENCE):
        yield from (call for call in calls if call.done())


def test_the_standard_health_service_asks_the_agent(client: Client) -> None:
    answering(client, Response(payload=b"\x08\x01"))
    assert client.call(method="/grpc.health.v1.Health/Check") == b"\x08\x01"
    assert (only_request(client).service, only_request(client).method) == ("grpc.Health", "Check")
    assert client.call(b"\x0a\x11grpc.AgentService", "/grpc.health.v1.Health/Check") == b"\x08\x01"
    answering(client, Response(payload=b"\x08\x02"))
    assert client.call(method="/grpc.health.v1.Health/Check") == b"\x08\x02"
    code, text = client.fails(b"\x0a\x08nonsense", "/grpc.health.v1.Health/Check")
    assert (code, "nonsense" in text) == (grpc.StatusCode.NOT_FOUND, True)
