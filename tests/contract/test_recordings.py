"""What Kata's shim and agent said to each other, recorded: our messages hold all of it, and our agent answers each call once.

What the calls do needs a guest (they mount a share of a virtual machine), so here most are answered by an error of the call's own.
"""

import base64
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

import pytest

from innkeeper.wire import frames, status
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.pb import agent_pb2, health_pb2
from tests.contract.agent_process import AgentProcess, running_agent

FOLDER = Path(__file__).resolve().parents[1] / "interop/recordings"
FILES = sorted(FOLDER.glob("*.jsonl*"))
CONVERSATIONS = 8
SERVICES = {**agent_pb2.SERVICES, **health_pb2.SERVICES}


@dataclass(frozen=True)
class Message:
    """One frame of a conversation. `call` is SERVICE/METHOD, for a response too."""

    request: bool
    stream: int
    call: str
    flags: int
    payload: bytes


def conversation(path: Path) -> list[Message]:
    data = path.read_bytes()
    text = (lzma.decompress(data) if path.suffix == ".xz" else data).decode()
    entries = [json.loads(line) for line in text.splitlines()[1:]]
    return [
        Message(entry["is"] == "request", entry["stream"], entry["call"], entry["flags"], base64.b64decode(entry["payload"]))
        for entry in entries
    ]


def test_the_recordings_are_there() -> None:
    """They are parts of the tree: where a pattern finds none, the tests below would be none."""
    assert len(FILES) == CONVERSATIONS


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_nothing_that_was_said_is_unknown(path: Path) -> None:
    """Each message, envelope and content, comes out of our types as long as it went in: no field is missing from them."""
    for message in conversation(path):
        service, method = message.call.split("/")
        kinds = SERVICES[service][method]
        if message.request:
            request = Request.decode(message.payload)
            assert (request.service, request.method) == (service, method)
            assert len(request.encode()) == len(message.payload)
            content = kinds[0].FromString(request.payload)
            whole = request.payload
        else:
            response = Response.decode(message.payload)
            content, whole = kinds[1].FromString(response.payload), response.payload
        content.DiscardUnknownFields()
        assert content.ByteSize() == len(whole), message.call


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_the_agent_answers_every_call_once(path: Path, tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        answers = replay(agent, conversation(path))
    assert sorted(answers) == sorted(message.stream for message in conversation(path) if message.request)
    calls = {message.stream: message.call for message in conversation(path)}
    assert [calls[stream] for stream, code in answers.items() if code == status.UNIMPLEMENTED] == []
    assert {code for stream, code in answers.items() if calls[stream] == "grpc.Health/Check"} == {status.OK}


def replay(agent: AgentProcess, messages: list[Message]) -> dict[int, int]:
    """Send the requests in their order; where a response was recorded, ours is waited for first. Stream -> status."""
    answers: dict[int, int] = {}
    with agent.raw() as raw:

        def wait_for(stream: int) -> None:
            while stream not in answers:
                answered, code, _ = raw.read_answer()
                assert answered not in answers, "answered twice"
                answers[answered] = code

        for message in messages:
            if message.request:
                raw.send(frames.encode(message.stream, frames.REQUEST, message.flags, message.payload))
            else:
                wait_for(message.stream)
        for message in messages:
            if message.request:
                wait_for(message.stream)
    return answers
