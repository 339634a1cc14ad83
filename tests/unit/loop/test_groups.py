"""The loop: nobody goes on while what it has cancelled is still at work, and whose cancellation it is."""

import pytest

from agent.loop import Cancelled, Event, TaskCancelled, TaskGroup, current_task, gather, run, shield, sleep, spawn, timeout


class Slow:
    """Work whose cleanup takes a few rounds of the loop."""

    def __init__(self) -> None:
        self.begun = self.cleaned = False

    async def work(self) -> None:
        self.begun = True
        try:
            await Event().wait()
        finally:
            for _ in range(3):
                await sleep(0.001)
            self.cleaned = True


def test_the_cancellation_of_a_child_is_told_from_ones_own() -> None:
    async def main() -> None:
        child = spawn(Event().wait(), name="child")

        async def parent() -> str:
            try:
                await child.wait()
            except TaskCancelled as error:
                return str(error)
            return ""

        first, second = spawn(parent(), name="first"), spawn(parent(), name="second")
        await sleep(0)
        second.cancel()
        child.cancel()
        assert await first.wait() == "task child was cancelled"
        with pytest.raises(TaskCancelled, match="second"):
            await second.wait()

    run(main())


def test_stop_waits_for_the_cleanup() -> None:
    async def main() -> None:
        slow = Slow()
        task = spawn(slow.work(), name="slow")
        await sleep(0)
        await task.stop()
        assert slow.cleaned
        await task.stop()

    run(main())


def test_asking_twice_does_not_disturb_the_cleanup() -> None:
    async def main() -> None:
        slow = Slow()
        task = spawn(slow.work(), name="slow")
        await sleep(0)
        task.cancel()
        await sleep(0)
        task.cancel()
        await task.stop()
        assert slow.cleaned

    run(main())


@pytest.mark.parametrize("how", ["gather", "group", "stop"])
def test_whoever_is_cancelled_waits_for_the_cleanup_of_its_own(how: str) -> None:
    parts = [Slow(), Slow()]

    async def body() -> None:
        if how == "gather":
            await gather(*(part.work() for part in parts))
        elif how == "group":
            async with TaskGroup() as group:
                for part in parts:
                    group.spawn(part.work(), name="part")
                await Event().wait()
        else:
            tasks = [spawn(part.work(), name="part") for part in parts]
            try:
                await Event().wait()
            finally:
                for task in tasks:
                    await task.stop()

    async def main() -> None:
        task = spawn(body(), name="body")
        while not all(part.begun for part in parts):
            await sleep(0)
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()
        assert all(part.cleaned for part in parts)

    run(main())


def test_run_waits_for_the_cleanup_of_what_it_leaves() -> None:
    slow = Slow()

    async def main() -> None:
        spawn(slow.work(), name="slow")
        await sleep(0)

    run(main())
    assert slow.cleaned


def test_a_group_ends_with_the_first_error_and_all_of_its_tasks() -> None:
    slow = Slow()

    async def fail() -> None:
        await sleep(0.001)
        raise ValueError("first")

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            async with TaskGroup() as group:
                group.spawn(slow.work(), name="slow")
                group.spawn(fail(), name="fail")
                await Event().wait()
        assert slow.cleaned
        await sleep(0.001)
        assert current_task().pending is None

    run(main())


def test_a_group_waits_for_its_tasks_and_cancels_them_when_the_block_fails() -> None:
    async def main() -> None:
        seen: list[int] = []

        async def note(number: int) -> None:
            await sleep(0.001)
            seen.append(number)

        async with TaskGroup() as group:
            group.spawn(note(1), name="one")
            group.spawn(note(2), name="two")
        assert sorted(seen) == [1, 2]
        slow = Slow()
        with pytest.raises(KeyError):
            async with TaskGroup() as group:
                group.spawn(slow.work(), name="slow")
                await sleep(0)
                raise KeyError
        assert slow.cleaned
        async with TaskGroup() as group:
            group.spawn(Event().wait(), name="for ever")
            group.cancel()

    run(main())


def test_shielded_work_is_finished_and_the_cancellation_comes_afterwards() -> None:
    seen: list[str] = []

    async def cleanup() -> str:
        for _ in range(3):
            await sleep(0.001)
        seen.append("clean")
        return "done"

    async def body() -> None:
        try:
            await Event().wait()
        finally:
            await shield(cleanup())

    async def main() -> None:
        assert await shield(cleanup()) == "done"
        task = spawn(body(), name="body")
        await sleep(0)
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()
        with pytest.raises(TimeoutError), timeout(0.001):
            await shield(cleanup())
        with pytest.raises(TimeoutError, match=r"0.0001"), timeout(0.001), timeout(0.0001):
            await shield(cleanup())
        await sleep(0.002)
        assert current_task().pending is None

    run(main())
    assert seen == ["clean"] * 4


def test_shielded_work_is_finished_at_the_end_of_run() -> None:
    slow: list[str] = []

    async def cleanup() -> None:
        await sleep(0.005)
        slow.append("clean")

    async def main() -> None:
        spawn(shield(cleanup()), name="body")
        await sleep(0)

    run(main())
    assert slow == ["clean"]


def test_an_error_of_shielded_work_is_raised() -> None:
    async def fail() -> None:
        await sleep(0)
        raise ValueError("cleanup")

    async def main() -> None:
        with pytest.raises(ValueError, match="cleanup"):
            await shield(fail())

    run(main())


def test_a_cancelled_main_ends_run() -> None:
    async def main() -> None:
        current_task().cancel()
        await sleep(0)

    with pytest.raises(Cancelled):
        run(main())
