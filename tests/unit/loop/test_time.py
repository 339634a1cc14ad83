"""The loop: timers, deadlines that fall together, and time limits beyond what epoll takes."""

import time

import pytest

from agent.loop import Event, TaskCancelled, run, sleep, spawn, timeout
from agent.loop.reactor import FEW_TIMERS
from agent.loop.task import running_loop
from tests.eventually import pause


def test_an_outer_limit_holds_after_an_inner_one_at_the_same_moment() -> None:
    """Both fall due while another task keeps the loop: the inner one is raised first, the outer one must not be lost."""
    seen: list[str] = []

    async def main() -> None:
        async def keep_the_loop() -> None:
            pause(0.01, "nothing else runs in the loop meanwhile")

        with pytest.raises(TimeoutError), timeout(0.004):
            try:
                with timeout(0.002):
                    spawn(keep_the_loop(), name="busy")
                    await Event().wait()
            except TimeoutError:
                seen.append("inner")
            await Event().wait()
        seen.append("outer")

    run(main())
    assert seen == ["inner", "outer"]


def test_a_cancel_and_a_limit_at_the_same_moment() -> None:
    async def victim() -> None:
        with timeout(0.002):
            await Event().wait()

    async def main() -> None:
        task = spawn(victim(), name="victim")
        await sleep(0)
        pause(0.004, "the limit passes without the loop")
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()

    run(main())


@pytest.mark.parametrize("seconds", [3e6, 1e10, (1 << 63) / 1e9, 1e300])
def test_limits_beyond_what_epoll_takes(seconds: float) -> None:
    async def main() -> str:
        with timeout(seconds):
            await sleep(0.001)
            task = spawn(sleep(seconds), name="for ever")
            await sleep(0.001)
            assert not task.done
        return "done"

    assert run(main()) == "done"


def test_timers_of_blocks_that_are_over_are_forgotten() -> None:
    async def main() -> int:
        with timeout(1000):
            for _ in range(20_000):
                with timeout(3600):
                    await sleep(0)
        return len(running_loop()._timers)

    assert run(main()) <= 2 * FEW_TIMERS


def test_timers_fire_in_order_around_cancelled_ones() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        the_loop = running_loop()
        now = time.monotonic()
        timers = [the_loop.call_at(now + number * 1e-5, lambda number=number: order.append(number)) for number in range(300)]  # type: ignore[misc]
        for timer in timers[::3] + timers[1::3]:
            the_loop.cancel_timer(timer)
            the_loop.cancel_timer(timer)
        await sleep(0.01)
        for timer in timers:
            the_loop.cancel_timer(timer)
        assert the_loop._cancelled >= 0
        return order

    assert run(main()) == list(range(2, 300, 3))


def test_a_sleep_that_is_cancelled_leaves_its_timer_behind_no_longer_than_needed() -> None:
    async def main() -> int:
        for _ in range(500):
            task = spawn(sleep(3600), name="sleeper")
            await sleep(0)
            task.cancel()
            with pytest.raises(TaskCancelled):
                await task.wait()
        return len(running_loop()._timers)

    assert run(main()) <= 2 * FEW_TIMERS
