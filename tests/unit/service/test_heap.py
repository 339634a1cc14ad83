"""What large requests leave on the heap goes back to the kernel, once for all that end together."""

import pytest

from agent.linux import libc
from agent.loop import run, sleep
from agent.service import heap


def test_large_requests_are_followed_by_one_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[str] = []
    monkeypatch.setattr(heap, "DELAY", 0.01)
    monkeypatch.setattr(libc, "trim_heap", lambda: trims.append("trim"))

    async def main() -> None:
        heap.request_ended(heap.LARGE - 1)
        await sleep(0.1)
        assert not trims
        for _ in range(5):
            heap.request_ended(heap.LARGE)
        assert not trims, "the answer comes first"
        await sleep(0.1)
        assert trims == ["trim"]
        heap.request_ended(heap.LARGE)
        await sleep(0.1)
        assert trims == ["trim", "trim"]

    run(main())


def test_the_end_of_the_loop_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[str] = []
    monkeypatch.setattr(libc, "trim_heap", lambda: trims.append("trim"))
    monkeypatch.setattr(heap, "_planned", False)

    async def main() -> None:
        heap.request_ended(heap.LARGE)

    run(main())
    assert not trims
