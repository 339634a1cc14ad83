"""Events of the sandbox: the life of containers in its order, and what the kernel kills for lack of memory."""

import errno

import pytest

from agent import event_log, loop
from agent.container_events import MAX_EVENTS
from agent.errors import StepFailed, WrongState
from tests.unit.agent.fake_guest import KILLED, Guest, cancelled, start


def test_the_life_of_a_container_is_published(guest: Guest) -> None:
    async def body() -> None:
        init = await guest.add("box", exec_id="main")
        await guest.sandbox.containers.start("box")
        added = await guest.exec("box", "more")
        added.end(3)
        await loop.sleep(0)
        init.end(4)
        await loop.sleep(0)
        await guest.sandbox.containers.remove("box")
        assert await guest.published() == [
            (event_log.CREATED, "box", "", 0),
            (event_log.STARTED, "box", "", 0),
            (event_log.STARTED, "box", "more", 0),
            (event_log.EXITED, "box", "more", 3),
            (event_log.EXITED, "box", "", 4),
            (event_log.REMOVED, "box", "", 0),
        ]

    guest.run(body)


def test_a_program_that_ends_before_its_start_is_answered_has_started_first(guest: Guest) -> None:
    """A start takes as long as its poststart hooks do, and the program runs meanwhile."""

    async def body() -> None:
        init = await guest.add("box")
        held = guest.steps.hold("start box")
        starting = start(guest.sandbox.containers.start("box"))
        await guest.steps.reached("start box")
        init.end(0)
        assert [kind for kind, *_ in await guest.published()] == [event_log.CREATED]
        held.set()
        await starting.wait()
        assert [kind for kind, *_ in await guest.published()] == [event_log.CREATED, event_log.STARTED, event_log.EXITED]

    guest.run(body)


def test_the_removal_is_published_last(guest: Guest) -> None:
    """Also if it comes while the start and an exec are still under way."""

    async def body() -> None:
        await guest.add("box")
        held = guest.steps.hold("start box")
        guest.steps.fails["start box"] = StepFailed("run hook", "the container has been removed meanwhile")
        starting = start(guest.sandbox.containers.start("box"))
        await guest.steps.reached("start box")
        removing = start(guest.sandbox.containers.remove("box"))
        await guest.steps.reached("kill box")
        held.set()
        with pytest.raises(StepFailed, match="removed meanwhile"):
            await starting.wait()
        await removing.wait()
        await guest.add("other")
        held = guest.steps.hold("start more")
        adding = start(guest.exec("other", "more"))
        await guest.steps.reached("start more")
        removing = start(guest.sandbox.containers.remove("other"))
        await guest.steps.reached("kill other")
        held.set()
        await adding.wait()
        await removing.wait()
        published = await guest.published()
        assert [event for event in published if event[1] == "box"] == [
            (event_log.CREATED, "box", "", 0),
            (event_log.EXITED, "box", "", KILLED),
            (event_log.REMOVED, "box", "", 0),
        ]
        assert [event for event in published if event[1:3] == ("other", "more")] == [
            (event_log.STARTED, "other", "more", 0),
            (event_log.EXITED, "other", "more", KILLED),
        ]
        assert published[-1] == (event_log.REMOVED, "other", "", 0)

    guest.run(body)


def test_a_failed_start_is_an_exit_without_a_start(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        guest.steps.fails["start box"] = StepFailed("execve", "no such file", errno.ENOENT)
        with pytest.raises(StepFailed, match="no such file"):
            await guest.sandbox.containers.start("box")
        assert await guest.published() == [(event_log.CREATED, "box", "", 0), (event_log.EXITED, "box", "", KILLED)]

    guest.run(body)


def test_a_start_goes_on_when_its_client_goes(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        held = guest.steps.hold("start box")
        starting = start(guest.sandbox.containers.start("box"))
        await guest.steps.reached("start box")
        await cancelled(starting)
        held.set()
        assert [kind for kind, *_ in await guest.published()] == [event_log.CREATED, event_log.STARTED]
        with pytest.raises(WrongState, match="is running: cannot start"):
            await guest.sandbox.containers.start("box")

    guest.run(body)


async def told(guest: Guest, *kills: int) -> None:
    """Let a started container's cgroup report kills, and wait until they are all seen."""
    for number in kills:
        guest.cgroup("box").oom.put_nowait(number)
    await guest.published()


def test_each_kill_for_lack_of_memory_is_an_event(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        await guest.sandbox.containers.start("box")
        await told(guest, 2, 1)
        assert [await guest.sandbox.oom_events.get() for _ in range(3)] == ["box"] * 3
        assert [kind for kind, *_ in await guest.published()][2:] == [event_log.OOM] * 3
        assert not any("dropped" in line for line in guest.log)

    guest.run(body)


@pytest.mark.parametrize(("kills", "dropped"), [((MAX_EVENTS, 1), 1), ((MAX_EVENTS + 1,), 1), ((1, 1 << 31), (1 << 31) + 1 - MAX_EVENTS)])
def test_kills_beyond_the_limit_are_dropped_and_logged(guest: Guest, kills: tuple[int, ...], dropped: int) -> None:
    async def body() -> None:
        await guest.add("box")
        await guest.sandbox.containers.start("box")
        await told(guest, *kills)
        assert len(guest.sandbox.oom_events) == MAX_EVENTS
        published = [kind for kind, *_ in await guest.published()].count(event_log.OOM)
        assert published == sum(min(number, MAX_EVENTS) for number in kills)
        (line,) = [line for line in guest.log if "dropped" in line]
        assert f"{dropped} events dropped, {MAX_EVENTS} are not fetched" in line
        await guest.sandbox.oom_events.get()
        await told(guest, 1)
        assert len(guest.sandbox.oom_events) == MAX_EVENTS

    guest.run(body)


def test_kills_at_the_sandboxs_end_are_no_error(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        await guest.sandbox.containers.start("box")
        guest.sandbox.oom_events.close()
        await told(guest, 1)
        assert (len(guest.sandbox.oom_events), any("1 events dropped" in line for line in guest.log)) == (0, True)

    guest.run(body)
