"""The loop: cancelling at the moment when what a task waits for comes. Nothing is lost, nothing is granted twice."""

import random
from collections.abc import Coroutine
from typing import Any

import pytest

from agent.loop import Cancelled, Event, Lock, Queue, QueueClosed, Task, TaskCancelled, current_task, gather, run, sleep, spawn, timeout


def test_a_task_cancelled_before_its_first_step_never_runs() -> None:
    async def never() -> None:
        raise AssertionError("ran")

    async def main() -> None:
        task = spawn(never(), name="never")
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()
        task.cancel()
        assert isinstance(task.exception, Cancelled)

    run(main())


def test_cancelling_a_finished_task_does_nothing() -> None:
    async def seven() -> int:
        return 7

    async def main() -> int | None:
        task = spawn(seven(), name="seven")
        await task.wait()
        task.cancel()
        await sleep(0)
        return await task.wait()

    assert run(main()) == 7


def test_a_task_that_cancels_itself_ends_at_its_next_park() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def suicidal() -> None:
            current_task().cancel()
            seen.append("still running")
            await sleep(0)
            seen.append("never")

        task = spawn(suicidal(), name="suicidal")
        with pytest.raises(TaskCancelled):
            await task.wait()
        return seen

    assert run(main()) == ["still running"]


def test_a_lock_that_is_granted_to_a_cancelled_task_goes_on_to_the_next() -> None:
    async def main() -> list[str]:
        lock, order = Lock(), list[str]()

        async def hold(name: str) -> None:
            async with lock:
                order.append(name)

        async with lock:
            tasks = [spawn(hold(name), name=name) for name in "abc"]
            await sleep(0)
        tasks[0].cancel()  # it owns the lock by now and has not run yet
        for task in tasks[1:]:
            await task.wait()
        assert lock.owner is None
        return order

    assert run(main()) == ["b", "c"]


def test_an_item_for_a_cancelled_task_goes_to_the_next() -> None:
    async def main() -> list[int]:
        queue, got = Queue[int](), list[int]()

        async def take() -> None:
            got.append(await queue.get())

        first, second = spawn(take(), name="first"), spawn(take(), name="second")
        await sleep(0)
        queue.put_nowait(1)
        first.cancel()
        await second.wait()
        return got

    assert run(main()) == [1]


def test_a_time_limit_at_the_moment_of_the_item() -> None:
    """Whichever comes first, the item is either returned or still in the queue."""

    async def main() -> None:
        queue: Queue[int] = Queue()
        for number in range(300):

            async def put(number: int = number) -> None:
                await sleep(0.0001 * (number % 5))
                queue.put_nowait(number)

            putting = spawn(put(), name="put")
            try:
                with timeout(0.0002):
                    got = await queue.get()
            except TimeoutError:
                await putting.wait()
                got = await queue.get()
            assert got == number
            assert len(queue) == 0

    run(main())


def test_closing_a_queue_ends_all_who_wait() -> None:
    async def main() -> int:
        queue: Queue[int] = Queue()
        tasks = [spawn(queue.get(), name="get") for _ in range(5)]
        await sleep(0)
        queue.put_nowait(1)
        queue.close()
        results = []
        for task in tasks:
            try:
                results.append(await task.wait())
            except QueueClosed:
                results.append(-1)
        assert sorted(results) == [-1, -1, -1, -1, 1]
        return len(queue)

    assert run(main()) == 0


@pytest.mark.parametrize("seed", range(30))
def test_random_cancels_around_a_lock(seed: int) -> None:
    """Never two inside, never nobody although somebody waits, and it is free at the end."""
    chance = random.Random(seed)

    async def main() -> None:
        lock, inside = Lock(), set[str]()

        async def hold(name: str) -> None:
            for _ in range(5):
                async with lock:
                    assert inside == set()
                    inside.add(name)
                    try:
                        await sleep(chance.choice((0, 0, 0.0001)))
                    finally:
                        inside.discard(name)

        tasks = [spawn(hold(str(number)), name=str(number)) for number in range(12)]
        while not all(task.done for task in tasks):
            if chance.random() < 0.2:
                chance.choice(tasks).cancel()
            await sleep(chance.choice((0, 0, 0.0001)))
        assert [task.exception for task in tasks if not isinstance(task.exception, Cancelled | None)] == []
        assert lock.owner is None

    run(main())


@pytest.mark.parametrize("seed", range(30))
def test_random_cancels_around_a_queue(seed: int) -> None:
    """Every item is taken once, in order for those who take."""
    chance = random.Random(seed)

    async def main() -> None:
        queue, got = Queue[int](), list[int]()

        async def take() -> None:
            while True:
                got.append(await queue.get())

        takers: list[Task[None]] = [spawn(take(), name="take") for _ in range(4)]
        for number in range(200):
            queue.put_nowait(number)
            if chance.random() < 0.3:
                chance.choice(takers).cancel()
                takers.append(spawn(take(), name="take"))
            if chance.random() < 0.5:
                await sleep(0)
        while len(queue):
            await sleep(0)
        assert got == list(range(200))

    run(main())


def test_a_loop_within_a_loop_is_refused_and_its_coroutine_closed() -> None:
    async def inner() -> None:
        raise AssertionError("ran")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="already"):
            run(inner())

    run(main())


def test_gather_that_is_cancelled_cancels_its_parts() -> None:
    async def main() -> list[str]:
        ended: list[str] = []

        async def part(name: str) -> None:
            try:
                await Event().wait()
            finally:
                ended.append(name)

        task = spawn(gather(part("a"), part("b")), name="gather")
        await sleep(0.001)
        task.cancel()
        with pytest.raises(TaskCancelled):
            await task.wait()
        await sleep(0)
        return ended

    assert run(main()) == ["a", "b"]


def test_waiting_for_many_who_wait_for_each_other() -> None:
    """A chain of tasks, each waiting for the one before."""

    async def main() -> int:
        async def after(task: "Task[int] | None") -> int:
            return 0 if task is None else await task.wait() + 1

        last: Task[int] | None = None
        for _ in range(500):
            work: Coroutine[Any, Any, int] = after(last)
            last = spawn(work, name="link")
        assert last is not None
        return await last.wait()

    assert run(main()) == 499
