"""The guest's clock as the machine's owner keeps it, with a guest whose clock can be moved."""

import threading
import time
from typing import Any, cast

import pytest

from innkeeper.client import RpcError
from innkeeper.engine import clock
from innkeeper.wire import status


class Guest:
    """A guest's clock, `offset` nanoseconds from ours; `refusal` is raised instead of an answer."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.asked = threading.Semaphore(0)
        self.refusal: RpcError | None = None

    def get_clock(self) -> int:
        self.asked.release()
        if self.refusal is not None:
            raise self.refusal
        return time.time_ns() + self.offset

    def set_guest_date_time(self, seconds: int, microseconds: int) -> None:
        assert 0 <= microseconds < 1_000_000
        self.offset = seconds * 1_000_000_000 + microseconds * 1000 - time.time_ns()


def agent_of(guest: Guest) -> Any:
    return cast("Any", guest)


@pytest.mark.parametrize(("offset", "corrected"), [(0, False), (-300_000_000, False), (-2_000_000_000, True), (3_600_000_000_000, True)])
def test_a_clock_that_is_off_is_set(offset: int, corrected: bool) -> None:
    guest = Guest(offset)
    assert clock.correct(agent_of(guest)) is corrected
    assert (guest.offset == offset) is not corrected
    assert not corrected or abs(guest.offset) < clock.TOLERANCE_NS


def test_it_is_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "INTERVAL", 0.01)
    guest = Guest()
    with clock.synchronized(agent_of(guest)):
        for offset in (-5_000_000_000, 7_000_000_000):
            guest.offset = offset
            for _ in range(3):
                assert guest.asked.acquire(timeout=30)
            assert abs(guest.offset) < clock.TOLERANCE_NS
        guest.refusal = RpcError(status.DEADLINE_EXCEEDED, "GetClock: no answer within 60 s")
        for _ in range(3):
            assert guest.asked.acquire(timeout=30), "a guest that is stopped answers later"


@pytest.mark.parametrize(
    "refusal",
    [RpcError(status.UNAVAILABLE, "gone", lost=True), RpcError(status.UNIMPLEMENTED, "?"), RpcError(status.PERMISSION_DENIED, "?")],
)
def test_a_guest_that_will_not_answer_is_left_alone(monkeypatch: pytest.MonkeyPatch, refusal: RpcError) -> None:
    monkeypatch.setattr(clock, "INTERVAL", 0.01)
    guest = Guest()
    guest.refusal = refusal
    with clock.synchronized(agent_of(guest)):
        assert guest.asked.acquire(timeout=30)
        for thread in threading.enumerate():
            if thread.name == "clock":
                thread.join(30)
                assert not thread.is_alive()
    assert not guest.asked.acquire(blocking=False)
