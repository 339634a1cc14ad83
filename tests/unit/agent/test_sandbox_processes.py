"""Processes of the sandbox: found by id, waited for, signalled, and their streams."""

import signal
from typing import Any

import pytest

from agent import event_log, loop
from agent.container.process_io import DEFAULT_IO
from agent.errors import NotFound, Refused
from agent.pod import containers
from agent.pod.streams import Streams
from innkeeper.wire.pb.agent_pb2 import ExecProcessRequest
from tests.unit.agent.fake_guest import KILLED, FakeProcess, Guest, start


def shell(guest: Guest, exec_id: str) -> FakeProcess:
    """A process of the guest itself."""
    made = FakeProcess(guest.steps, exec_id, False, DEFAULT_IO)
    guest.processes.append(made)
    guest.sandbox.containers.shells.processes[exec_id] = made
    return made


# found by id


def test_a_process_by_its_ids(guest: Guest) -> None:
    async def body() -> None:
        init, added = await guest.add("box", exec_id="main"), await guest.exec("box", "more")
        found = [guest.sandbox.containers.process("box", exec_id) for exec_id in ("", "main", "more")]
        assert found == [init, init, added]
        with pytest.raises(NotFound, match="container 'none' not found"):
            guest.sandbox.containers.process("none", "")
        with pytest.raises(NotFound, match="process 'none' not found"):
            guest.sandbox.containers.process("box", "none")

    guest.run(body)


def test_the_guest_itself_has_shells_unless_a_container_has_its_name(guest: Guest) -> None:
    async def body() -> None:
        made = shell(guest, "sh")
        assert guest.sandbox.containers.process("guest", "sh") is made
        with pytest.raises(NotFound, match="Process not found: 'none' in the guest"):
            guest.sandbox.containers.process("guest", "none")
        init = await guest.add("guest")
        assert guest.sandbox.containers.process("guest", "") is init
        with pytest.raises(NotFound):
            guest.sandbox.containers.process("guest", "sh")

    guest.run(body)


# waited for


def test_the_status_of_an_added_process_is_told_once(guest: Guest) -> None:
    """Those who wait already get it too. The first process keeps its own until the removal."""

    async def body() -> None:
        init, added = await guest.add("box"), await guest.exec("box", "more")
        waiting = [start(guest.sandbox.containers.wait("box", exec_id)) for exec_id in ("more", "more", "", "box")]
        await loop.sleep(0)
        added.end(3)
        init.end(4)
        assert [await task.wait() for task in waiting] == [3, 3, 4, 4]
        with pytest.raises(NotFound):
            await guest.sandbox.containers.wait("box", "more")
        assert [await guest.sandbox.containers.wait("box", exec_id) for exec_id in ("", "box")] == [4, 4]
        assert guest.sandbox.containers.get("box").processes == {"box": init}

    guest.run(body)


def test_a_waiter_leaves_a_new_process_of_the_same_id(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        added = await guest.exec("box", "more")

        async def again() -> FakeProcess:
            await added.wait()
            return await guest.exec("box", "more")

        first, following, second = (
            start(guest.sandbox.containers.wait("box", "more")),
            start(again()),
            start(guest.sandbox.containers.wait("box", "more")),
        )
        await loop.sleep(0)
        added.end(3)
        assert (await first.wait(), await second.wait()) == (3, 3)
        assert guest.sandbox.containers.process("box", "more") is await following.wait()

    guest.run(body)


def test_the_status_of_a_shell_is_told_once(guest: Guest) -> None:
    async def body() -> None:
        made = shell(guest, "sh")
        waiting = start(guest.sandbox.containers.wait("guest", "sh"))
        await loop.sleep(0)
        made.end(5)
        assert (await waiting.wait(), guest.sandbox.containers.shells.processes) == (5, {})

    guest.run(body)


def test_a_removal_ends_those_who_wait(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        await guest.exec("box", "more")
        waiting = [start(guest.sandbox.containers.wait("box", exec_id)) for exec_id in ("", "more")]
        await loop.sleep(0)
        await guest.sandbox.containers.remove("box")
        assert [await task.wait() for task in waiting] == [KILLED, KILLED]

    guest.run(body)


def test_a_status_is_told_until_the_container_is_gone(guest: Guest) -> None:
    """Whoever asks at whichever moment of a removal, once the process has ended."""

    async def body() -> None:
        await guest.add("box")
        added = await guest.exec("box", "more")
        going, statuses = start(guest.sandbox.containers.remove("box")), []
        while "box" in guest.ids:
            if added.exit_status is not None:
                statuses.append(guest.sandbox.containers.process("box", "more").exit_status)
            await loop.sleep(0)
        await going.wait()
        assert statuses and set(statuses) == {KILLED}

    guest.run(body)


def test_an_exec_is_answered_also_if_its_status_is_told_first(guest: Guest) -> None:
    """A short program may end before the call that starts it, and a waiter takes it out of the table."""

    async def body() -> None:
        await guest.add("box")
        held = guest.steps.hold("start more")
        starting = start(guest.exec("box", "more"))
        await guest.steps.reached("start more")
        waiting = start(guest.sandbox.containers.wait("box", "more"))
        await loop.sleep(0)
        guest.processes[-1].end(0)
        assert await waiting.wait() == 0
        held.set()
        assert (await starting.wait()).exec_id == "more"
        assert (await guest.published())[1:] == [(event_log.STARTED, "box", "more", 0), (event_log.EXITED, "box", "more", 0)]

    guest.run(body)


# signalled


def test_signals(guest: Guest) -> None:
    async def body() -> None:
        init, added = await guest.add("box"), await guest.exec("box", "more")
        for exec_id, signum in (("", signal.SIGTERM), ("box", signal.SIGUSR1), ("more", signal.SIGKILL), ("more", 64)):
            guest.sandbox.containers.signal("box", exec_id, signum)
        assert (init.signals, added.signals) == ([signal.SIGTERM, signal.SIGUSR1], [signal.SIGKILL, 64])
        assert "kill box" not in guest.steps.taken
        guest.sandbox.containers.signal("box", "", signal.SIGKILL)
        assert (guest.steps.taken[-1], init.exit_status, added.exit_status) == ("kill box", KILLED, KILLED)
        guest.sandbox.containers.signal("box", "", signal.SIGTERM)
        assert init.signals == [signal.SIGTERM, signal.SIGUSR1]

    guest.run(body)


@pytest.mark.parametrize("signum", [-1, 0, 65])
def test_numbers_that_are_no_signal_are_refused(guest: Guest, signum: int) -> None:
    async def body() -> None:
        await guest.add("box")
        with pytest.raises(Refused, match=f"signal: {signum} is not a signal"):
            guest.sandbox.containers.signal("box", "", signum)

    guest.run(body)


def test_sigterm_that_the_kernel_would_drop_is_sigkill(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "would_drop", lambda pid, signum: True)

    async def body() -> None:
        init, added = await guest.add("box"), await guest.exec("box", "more")
        for exec_id in ("", "more"):
            guest.sandbox.containers.signal("box", exec_id, signal.SIGTERM)
        assert (init.signals, added.signals) == ([signal.SIGKILL], [signal.SIGTERM])

    guest.run(body)


def test_a_process_that_ends_at_this_moment_is_no_error(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        init = await guest.add("box")

        def ends(pid: int, signum: int) -> bool:
            init.end(0)
            return False

        monkeypatch.setattr(containers, "would_drop", ends)
        guest.sandbox.containers.signal("box", "", signal.SIGTERM)
        assert (init.exit_status, init.signals) == (0, [])

    guest.run(body)


def test_signals_while_the_container_is_removed(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that for a process that has ended, also once the cgroup is gone."""

    async def body() -> None:
        init, _added = await guest.add("box"), await guest.exec("box", "more")
        container, steps = guest.sandbox.containers.get("box"), guest.steps

        async def last_hooks(_hooks: object) -> list[str]:
            await steps.take("poststop")
            return []

        monkeypatch.setattr(container._hooks, "run_last", last_hooks)
        container._poststop_due = True
        held = [steps.hold("remove box"), steps.hold("poststop")]
        removing = start(guest.sandbox.containers.remove("box"))
        for step, event, gone in zip(("remove box", "poststop"), held, (False, True), strict=True):
            await steps.reached(step)
            assert (container.cgroup is None) == gone
            for exec_id, signum in (("", signal.SIGKILL), ("box", signal.SIGKILL), ("", signal.SIGTERM), ("more", signal.SIGKILL)):
                guest.sandbox.containers.signal("box", exec_id, signum)
            event.set()
        await removing.wait()
        assert init.signals == []
        with pytest.raises(NotFound):
            guest.sandbox.containers.signal("box", "", signal.SIGKILL)

    guest.run(body)


# streams


def test_ports_are_claimed_where_one_is_open(guest: Guest) -> None:
    class Claims:
        async def claim(self, *asked: object) -> Streams:
            self.asked = asked
            return Streams(None, None, None)

    async def body() -> None:
        request = ExecProcessRequest(stdout_port=7)
        assert await guest.sandbox.claim_streams(ExecProcessRequest(), terminal=False) is None
        with pytest.raises(Refused, match="passfd_listener_port"):
            await guest.sandbox.claim_streams(request, terminal=False)
        passthrough = guest.sandbox.pass_streams()
        claims: Any = Claims()
        passthrough.claim = claims.claim  # type: ignore[method-assign]
        assert isinstance(await guest.sandbox.claim_streams(request, terminal=True), Streams)
        assert claims.asked == (0, 7, 0, True)

    guest.run(body)
