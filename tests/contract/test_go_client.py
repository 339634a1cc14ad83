"""containerd's Go client calls the agent."""

from pathlib import Path

import pytest

from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2
from tests.contract.agent_process import AgentProcess
from tests.contract.go_oracle import Answer, Call, calls
from tests.needs import needs

pytestmark = needs("go")
AGENT = "grpc.AgentService"
CHECK = Call("grpc.Health", "Check")
SERVING = Answer(status.OK, "", b"\x08\x01")
LIMIT = 4 << 20


def one(program: Path, agent: AgentProcess, call: Call) -> Answer:
    return calls(program, agent.path, [call])[0]


def test_check_and_version(go_oracle: Path, agent: AgentProcess) -> None:
    assert calls(go_oracle, agent.path, [CHECK, Call("grpc.Health", "Version")]) == [
        SERVING,
        Answer(status.OK, "", b"\x0a\x050.0.1\x12\x054.1.0"),
    ]


def test_a_message_that_has_no_field_set(go_oracle: Path, agent: AgentProcess) -> None:
    """An empty message is no bytes at all, and no status means success."""
    assert one(go_oracle, agent, Call(AGENT, "RemoveStaleVirtiofsShareMounts")) == Answer(status.OK, "", b"")


def test_details(go_oracle: Path, agent: AgentProcess) -> None:
    request = agent_pb2.GuestDetailsRequest(mem_block_size=True).SerializeToString()
    answer = one(
        go_oracle, agent, Call(AGENT, "GetGuestDetails", request, metadata="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    )
    assert answer.code == status.OK
    assert agent_pb2.GuestDetailsResponse.FromString(answer.payload).agent_details.version == "4.1.0"


@pytest.mark.parametrize(
    ("call", "code", "message"),
    [
        (Call(AGENT, "NoSuchMethod"), status.UNIMPLEMENTED, "/grpc.AgentService/NoSuchMethod is not supported"),
        (Call("no.Service", "Check"), status.UNIMPLEMENTED, "/no.Service/Check is not supported"),
        (Call(AGENT, "StartContainer", b"\x0a\x04none"), status.NOT_FOUND, "container 'none' not found"),
        (Call(AGENT, "WaitProcess", b"\x0a\x01\xff"), status.INVALID_ARGUMENT, ""),
    ],
)
def test_errors_arrive_as_statuses(go_oracle: Path, agent: AgentProcess, call: Call, code: int, message: str) -> None:
    answer = one(go_oracle, agent, call)
    assert answer.code == code
    assert message in answer.message
    assert answer.payload == b""


def test_messages_around_the_limit(go_oracle: Path, agent: AgentProcess) -> None:
    """The longest frame there is arrives; a longer one is refused by the Go client itself, and neither side loses the connection."""
    room = LIMIT - len("grpc.Health") - len("Check") - 20
    answers = calls(go_oracle, agent.path, [Call("grpc.Health", "Check", padding=size) for size in (room, LIMIT, room, LIMIT, 1 << 20, 0)])
    assert [answer.code for answer in answers] == [0, 8, 0, 8, 0, 0]
    assert "4194304" in answers[1].message


def test_many_calls_at_once(go_oracle: Path, agent: AgentProcess) -> None:
    def call(number: int) -> Call:
        return (
            CHECK,
            Call(AGENT, f"No{number}"),
            Call(AGENT, "StartContainer", b"\x0a\x04c%03d" % number),
            Call(AGENT, "GetOOMEvent", timeout_ms=50),
        )[number % 4]

    answers = calls(go_oracle, agent.path, [call(number) for number in range(800)])
    for number, answer in enumerate(answers):
        if number % 4 == 0:
            assert answer == SERVING
        elif number % 4 == 1:
            assert answer == Answer(status.UNIMPLEMENTED, f"/{AGENT}/No{number} is not supported", b"")
        elif number % 4 == 2:
            assert answer == Answer(status.NOT_FOUND, f"container 'c{number:03d}' not found", b"")
        else:
            assert answer.code == status.DEADLINE_EXCEEDED


def test_a_deadline_and_the_calls_after_it(go_oracle: Path, agent: AgentProcess) -> None:
    """Whichever side speaks first: the caller sees its deadline exceeded, a late answer harms nothing."""
    waiting = [Call(AGENT, "GetOOMEvent", timeout_ms=ms) for ms in (1, 5, 20, 100)]
    answers = calls(go_oracle, agent.path, [*waiting, CHECK])
    assert [answer.code for answer in answers] == [status.DEADLINE_EXCEEDED] * 4 + [status.OK]


def test_clients_that_leave_with_calls_in_flight(go_oracle: Path, agent: AgentProcess) -> None:
    for _ in range(3):
        calls(go_oracle, agent.path, [Call(AGENT, "GetOOMEvent", timeout_ms=1)] * 20)
    agent.wait_for_rest()
