"""The agent's server by its socket: what is answered to right and wrong calls, byte for byte where that is the contract."""

import pytest

from innkeeper.wire import frames, status
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.pb import agent_pb2
from tests.contract.agent_process import CHECK_ANSWER, AgentProcess
from tests.contract.wire_helpers import header, request_frame, split

AGENT, GUEST = "grpc.AgentService", "innkeeper.v1.Guest"
LIMIT = frames.MAX_PAYLOAD


def waiting(stream: int, nano: int = 0, payload: bytes = b"") -> bytes:
    """A call that is not answered before something happens: nothing is ever killed for lack of memory here."""
    return request_frame(stream, AGENT, "GetOOMEvent", payload, nano=nano)


def test_check_and_version_to_the_byte(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(request_frame(1))
        assert raw.read_frame() == CHECK_ANSWER
        raw.send(request_frame(3, method="Version"))
        [(stream, kind, flags, payload)] = split(raw.read_frame())
    assert (stream, kind, flags) == (3, frames.RESPONSE, 0)
    assert Response.decode(payload).payload == b"\x0a\x050.0.1\x12\x054.1.0"


@pytest.mark.parametrize(
    ("service", "method"),
    [
        (AGENT, "NoSuchMethod"),
        (AGENT, "createsandbox"),
        (AGENT, "PullImage"),
        (AGENT, "Check"),
        ("grpc.Health", "CreateSandbox"),
        ("grpc.Nothing", "Check"),
        (GUEST, "Nothing"),
        ("", ""),
        (f"/{AGENT}", "CreateSandbox"),
    ],
)
def test_unknown_methods_are_unimplemented_by_name(agent: AgentProcess, service: str, method: str) -> None:
    with agent.raw() as raw:
        raw.send(request_frame(1, service, method))
        assert raw.read_answer() == (1, status.UNIMPLEMENTED, f"/{service}/{method} is not supported")


NOT_TRIED = (
    *("SetGuestDateTime", "ReseedRandomDev", "OnlineCPUMem", "MemHotplugByProbe", "AddSwap", "AddSwapPath"),  # would act on this machine
    *("CreateSandbox", "DestroySandbox", "GetOOMEvent"),  # would act on the other tests, or wait
)


def test_every_method_of_the_interface_is_answered(agent: AgentProcess) -> None:
    """With an empty request the others do nothing: each answers, or refuses; none fails by an error of its own."""
    harmless = [method for method in agent_pb2.SERVICES[AGENT] if method not in NOT_TRIED]
    with agent.raw() as raw:
        raw.send(*[request_frame(2 * index + 1, AGENT, method) for index, method in enumerate(harmless)])
        told = {harmless[stream // 2]: (code, message) for stream, code, message in raw.read_answers(len(harmless))}
    assert set(told) == set(harmless)
    wrong = {name: answer for name, answer in told.items() if answer[0] == status.INTERNAL and "Error: " in answer[1]}
    assert wrong == {}


@pytest.mark.parametrize(
    ("method", "payload"), [("StartContainer", b"\x0a\x05ab"), ("CreateContainer", b"\xff" * 9), ("WriteStdin", b"\x0a\x01\xff")]
)
def test_undecodable_messages_are_invalid(agent: AgentProcess, method: str, payload: bytes) -> None:
    with agent.raw() as raw:
        raw.send(request_frame(1, AGENT, method, payload))
        stream, code, message = raw.read_answer()
        assert (stream, code) == (1, status.INVALID_ARGUMENT)
        assert message.startswith(f"{method}: undecodable request")
        raw.check(3)


def test_undecodable_envelopes_are_invalid(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(frames.encode(1, frames.REQUEST, 0, b"\x0a\x05ab"))
        stream, code, message = raw.read_answer()
        assert (stream, code) == (1, status.INVALID_ARGUMENT)
        assert "undecodable request" in message
        raw.check(1)


def test_ids_that_name_nothing(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(request_frame(1, AGENT, "StartContainer", agent_pb2.StartContainerRequest(container_id="none").SerializeToString()))
        raw.send(request_frame(3, AGENT, "WaitProcess", agent_pb2.WaitProcessRequest(container_id="none", exec_id="x").SerializeToString()))
        assert {stream: code for stream, code, _ in raw.read_answers(2)} == {1: status.NOT_FOUND, 3: status.NOT_FOUND}


def test_streaming_calls_are_refused(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        for stream, flags in ((1, frames.REMOTE_OPEN), (3, frames.REMOTE_CLOSED)):
            raw.send(request_frame(stream, flags=flags))
            assert raw.read_answer() == (stream, status.UNIMPLEMENTED, "grpc.Health/Check is not a streaming method")
        raw.check(5)


def test_even_ids_ids_in_use_and_unknown_types(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(request_frame(2), waiting(1), request_frame(1), frames.encode(3, 9, 0, b"?"), request_frame(5))
        assert raw.read_answers(3) == [
            (2, status.INVALID_ARGUMENT, "stream id must be odd"),
            (1, status.INVALID_ARGUMENT, "stream id is in use"),
            (5, status.OK, ""),
        ]


def test_data_on_a_call_in_flight(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(waiting(1), frames.encode(1, frames.DATA, 0, b"x"), frames.encode(1, frames.DATA, 0, b"x"))
        assert raw.read_answer() == (1, status.INVALID_ARGUMENT, "data on a unary call")
        raw.check(3)


def test_an_oversize_request_fails_alone(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(waiting(1), header(LIMIT + 1, 3, frames.REQUEST), bytes(LIMIT + 1), request_frame(5))
        stream, code, message = raw.read_answer()
        assert (stream, code) == (3, status.RESOURCE_EXHAUSTED)
        assert str(LIMIT) in message
        assert raw.read_answer() == (5, status.OK, "")


def test_one_byte_at_a_time(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        for byte in request_frame(1) + request_frame(3):
            raw.send(bytes([byte]))
        assert raw.read_answers(2) == [(1, status.OK, ""), (3, status.OK, "")]


def test_many_calls_in_one_piece_are_answered_in_order(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(*[request_frame(stream) for stream in range(1, 2000, 2)])
        assert [raw.read_answer()[0] for _ in range(1000)] == list(range(1, 2000, 2))


def test_unknown_metadata_and_fields_are_ignored(agent: AgentProcess) -> None:
    request = Request("grpc.Health", "Check", b"", 0, [("traceparent", "00-0af7-b7ad-01"), ("", ""), ("traceparent", "again")])
    with agent.raw() as raw:
        raw.send(frames.encode(1, frames.REQUEST, 0, request.encode() + b"\xf8\x7d\x05\xfa\x7d\x02hi"))
        assert raw.read_answer() == (1, status.OK, "")


# deadlines


def test_a_deadline_that_passes(agent: AgentProcess) -> None:
    with agent.raw() as raw:
        raw.send(waiting(1, nano=20_000_000), waiting(3), waiting(5, nano=1))
        assert sorted(raw.read_answers(2)) == [(1, status.DEADLINE_EXCEEDED, "timeout"), (5, status.DEADLINE_EXCEEDED, "timeout")]
        raw.check(7)


@pytest.mark.parametrize("nano", [(1 << 63) - 1, 2_200_000_000_000_000, -1, -(1 << 63)])
def test_deadlines_beyond_what_a_system_call_takes(agent: AgentProcess, nano: int) -> None:
    with agent.raw() as raw:
        raw.send(waiting(1, nano=nano))
        for stream in range(3, 11, 2):
            raw.check(stream)


def test_a_short_deadline_on_a_call_that_is_answered(agent: AgentProcess) -> None:
    """The two may come together; exactly one answer is sent."""
    with agent.raw() as raw:
        streams = list(range(1, 801, 2))
        raw.send(*[request_frame(stream, AGENT, "GetGuestDetails", nano=stream * 4000) for stream in streams])
        told = raw.read_answers(len(streams))
        assert sorted(stream for stream, _, _ in told) == streams
        assert {code for _, code, _ in told} <= {status.OK, status.DEADLINE_EXCEEDED}
        raw.check(1001)


# limits


def test_calls_in_flight_are_limited(agent: AgentProcess) -> None:
    from agent.service.server import MAX_CALLS

    with agent.raw() as raw, agent.raw() as other:
        raw.send(*[waiting(2 * index + 1) for index in range(MAX_CALLS + 2)])
        expected = [(2 * index + 1, status.RESOURCE_EXHAUSTED, "too many calls in flight") for index in (MAX_CALLS, MAX_CALLS + 1)]
        assert raw.read_answers(2) == expected
        raw.check(99_999)
        other.send(request_frame(1, AGENT, "GetGuestDetails"))
        assert other.read_answer()[:2] == (1, status.OK)


def test_bytes_of_calls_in_flight_are_limited(agent: AgentProcess) -> None:
    from agent.service.server import MAX_CALL_BYTES

    padding = b"\xc2\x3e" + b"\x80\x80\xe0\x01" + bytes(0x380000)  # field 1000, 3.5 MiB: unknown to every message
    fit = MAX_CALL_BYTES // len(padding)
    with agent.raw() as raw:
        for index in range(fit + 1):
            raw.send(waiting(2 * index + 1, payload=padding))
        assert raw.read_answer() == (2 * fit + 1, status.RESOURCE_EXHAUSTED, "too many calls in flight")
        raw.check(99_999)
