"""What large requests leave on the heap goes back to the kernel, once for all that end together."""

import pytest

from agent.loop import run, sleep, socket_pair, spawn
from agent.service import malloc_trim, server
from agent.service.server import Answer, Peer
from innkeeper.wire.connection import CLIENT, Connection
from innkeeper.wire.envelope import Request, Response


def test_there_is_one_trim_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[str] = []
    monkeypatch.setattr(malloc_trim, "DELAY", 0.01)
    monkeypatch.setattr(malloc_trim, "trim_heap", lambda: trims.append("trim"))

    async def main() -> None:
        for expected in (["trim"], ["trim", "trim"]):
            for _ in range(5):
                malloc_trim.trim_soon()
            assert len(trims) == len(expected) - 1, "the answer comes first"
            await sleep(0.1)
            assert trims == expected

    run(main())


def test_the_end_of_the_loop_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[str] = []
    monkeypatch.setattr(malloc_trim, "trim_heap", lambda: trims.append("trim"))
    monkeypatch.setattr(malloc_trim, "_planned", False)

    async def main() -> None:
        malloc_trim.trim_soon()

    run(main())
    assert not trims


@pytest.mark.parametrize(("size", "times"), [(server.LARGE_REQUEST - 1, 0), (server.LARGE_REQUEST, 1)])
def test_it_follows_large_requests(monkeypatch: pytest.MonkeyPatch, size: int, times: int) -> None:
    planned: list[str] = []
    monkeypatch.setattr(malloc_trim, "trim_soon", lambda: planned.append("trim"))

    async def call() -> Response:
        return Response(0, "")

    async def main() -> None:
        ours, theirs = socket_pair()
        peer = spawn(Peer(theirs, lambda request: Answer(call=call)).run(), name="peer")
        client = Connection(CLIENT)
        client.send_request(Request("grpc.AgentService", "CreateContainer", bytes(size)))
        with ours:
            rest = memoryview(client.data_to_send())
            while rest:
                rest = rest[ours.send(rest) :]
                await sleep(0.01)
            await sleep(0.1)
        await peer.wait()

    run(main())
    assert len(planned) == times
