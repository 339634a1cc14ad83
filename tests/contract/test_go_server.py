"""Our client calls containerd's Go server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf import empty_pb2
from google.protobuf.wrappers_pb2 import StringValue

from innkeeper.client import Client, RpcError, connect
from innkeeper.wire import status
from tests.contract import go_oracle as go
from tests.contract.agent_process import PATIENCE
from tests.needs import needs

pytestmark = needs("go")
SERVICE = "oracle.Test"


@pytest.fixture(scope="module")
def socket(go_oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("go") / "server.sock"
    with go.server(go_oracle, path):
        yield path


@pytest.fixture
def client(socket: Path) -> Iterator[Client]:
    with connect(f"unix://{socket}", PATIENCE) as client:
        yield client


def say(client: Client, method: str, text: str = "", timeout: float | None = PATIENCE) -> str:
    return client.call(SERVICE, method, StringValue(value=text), StringValue, timeout).value


def error_of(call: Callable[[], object]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("text", ["", "hello", "Köln \U0001f600", "x" * 100_000, "x" * 4_194_200])
def test_a_message_comes_back(client: Client, text: str) -> None:
    assert say(client, "Echo", text) == text


def test_statuses(client: Client) -> None:
    for code in range(1, 17):
        error = error_of(lambda code=code: say(client, "Fail", f"{code} reason {code}"))  # type: ignore[misc]
        assert (error.code, error.message, error.lost) == (code, f"reason {code}", False)
    assert say(client, "Fail", "0 none") == ""


@pytest.mark.parametrize(("service", "method"), [(SERVICE, "Nothing"), ("no.Service", "Echo")])
def test_what_it_does_not_have(client: Client, service: str, method: str) -> None:
    error = error_of(lambda: client.call(service, method, empty_pb2.Empty(), empty_pb2.Empty, PATIENCE))
    assert error.code == status.UNIMPLEMENTED


def test_deadlines(client: Client) -> None:
    assert say(client, "Deadline", timeout=None) == "none"
    assert 0 < int(say(client, "Deadline", timeout=1000)) <= 1_000_000
    assert error_of(lambda: say(client, "Sleep", "60000", 0.05)).code == status.DEADLINE_EXCEEDED
    assert say(client, "Sleep", "1") == "1"


def test_answers_that_come_too_late(client: Client) -> None:
    assert error_of(lambda: say(client, "Ignore", "400", 0.01)).code == status.DEADLINE_EXCEEDED
    assert say(client, "Ignore", "500") == "500"  # the late one has come meanwhile
    assert say(client, "Echo", "still") == "still"


def test_many_calls_from_many_threads(client: Client) -> None:
    def work(number: int) -> str:
        if number % 3 == 0:
            return say(client, "Sleep", str(number % 7))
        if number % 3 == 1:
            return say(client, "Echo", f"{number} " * 2000)
        return str(error_of(lambda: say(client, "Fail", f"5 number {number}")))

    with ThreadPoolExecutor(24) as pool:
        told = list(pool.map(work, range(600)))
    expected = [(str(n % 7), f"{n} " * 2000, f"NOT_FOUND: number {n}")[n % 3] for n in range(600)]
    assert told == expected


def test_messages_over_the_limit(client: Client) -> None:
    assert error_of(lambda: say(client, "Echo", "x" * (4 << 20))).code == status.RESOURCE_EXHAUSTED
    assert say(client, "Echo", "next") == "next"


def test_answers_around_the_limit(client: Client) -> None:
    """That server does not refuse an answer that is too long: it ends the connection, which every caller hears of."""
    assert len(say(client, "Big", "4194000")) == 4_194_000
    error = error_of(lambda: say(client, "Big", "4194305"))
    assert (error.code, error.lost) == (status.UNAVAILABLE, True)
    assert error_of(lambda: say(client, "Echo")).lost


def test_a_server_that_dies_within_a_call(go_oracle: Path, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with go.server(go_oracle, path), connect(f"unix://{path}", PATIENCE) as client:
        error = error_of(lambda: say(client, "Leave"))
        assert (error.code, error.lost) == (status.UNAVAILABLE, True)
        assert error_of(lambda: say(client, "Echo")).lost
