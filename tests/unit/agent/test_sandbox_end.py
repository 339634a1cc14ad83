"""The end of the sandbox: everything is released in order, whatever fails or happens meanwhile."""

import pytest

from agent import loop
from agent.errors import NotFound, StepFailed, WrongState
from agent.pod import containers
from tests.unit.agent.fake_guest import Guest, cancelled, start


def test_containers_are_removed_in_reverse_order_then_swap_and_storages(guest: Guest) -> None:
    async def body() -> None:
        await guest.create(storages=[guest.storage("shm")])
        for name in ("a1", "b1", "c1"):
            await guest.add(name, guest.storage("volume"))
        await guest.sandbox.add_swap("/dev/vdz")
        assert guest.swaps == ["/dev/vdz"]
        guest.steps.taken.clear()
        held = guest.steps.hold("swapoff")
        ending = start(guest.sandbox.destroy())
        await guest.steps.reached("swapoff")
        assert set(guest.mounts.mounts) == {str(guest.folder / name) for name in ("shm", "volume")}
        held.set()
        await ending.wait()
        removed = [step for step in guest.steps.taken if not step.startswith("kill")]
        assert removed == ["remove c1", "remove b1", "remove a1", "swapoff"]
        assert (guest.ids, guest.swaps, guest.mounts.mounts) == ([], [], {})
        assert (guest.sandbox.ended.is_set, guest.sandbox.oom_events.closed) == (True, True)

    guest.run(body)


def test_errors_are_logged_and_survived(guest: Guest) -> None:
    async def body() -> None:
        await guest.create(storages=[guest.storage("shm")])
        for name in ("a1", "b1", "c1"):
            await guest.add(name)
        await guest.sandbox.add_swap("/dev/vdz")
        guest.steps.fails |= {
            "remove c1": StepFailed("remove cgroup", "busy"),
            "remove b1": TimeoutError("not done"),
            "swapoff": OSError(12, "Cannot allocate memory"),
        }
        await guest.sandbox.destroy()
        assert (guest.ids, guest.mounts.mounts, guest.sandbox.ended.is_set) == (["b1", "c1"], {}, True)

    guest.run(body)
    for text in ("container c1: remove cgroup: busy", "container b1: not done", "destroy: [Errno 12] Cannot allocate memory"):
        assert any(text in line for line in guest.log), text


def test_the_agent_ends_also_after_an_unexpected_error(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("a1")
        guest.steps.fails["remove a1"] = ZeroDivisionError()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await guest.sandbox.destroy()
        assert (guest.sandbox.ended.is_set, guest.sandbox.oom_events.closed) == (True, True)
        guest.sandbox._ending = None

    guest.run(body)


def test_it_goes_on_when_its_client_goes(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("a1")
        held = guest.steps.hold("remove a1")
        first, second = start(guest.sandbox.destroy()), start(guest.sandbox.destroy())
        await guest.steps.reached("remove a1")
        await cancelled(first)
        assert (guest.sandbox.ended.is_set, second.done) == (False, False)
        held.set()
        await second.wait()
        assert (guest.ids, guest.steps.taken.count("remove a1"), guest.sandbox.ended.is_set) == ([], 1, True)

    guest.run(body)


def test_no_container_is_admitted_meanwhile(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("a1")
        held = guest.steps.hold("remove a1")
        ending = start(guest.sandbox.destroy())
        await guest.steps.reached("remove a1")
        with pytest.raises(WrongState, match="the sandbox is at its end"):
            await guest.add("b1", guest.storage("volume"))
        assert (guest.mounts.mounts, "create b1" in guest.steps.taken) == ({}, False)
        held.set()
        await ending.wait()

    guest.run(body)


def test_a_container_that_is_removed_already_is_passed_over(guest: Guest) -> None:
    async def body() -> None:
        for name in ("a1", "b1"):
            await guest.add(name)
        held = guest.steps.hold("remove b1")
        ending = start(guest.sandbox.destroy())
        await guest.steps.reached("remove b1")
        await guest.sandbox.containers.remove("a1")
        held.set()
        await ending.wait()

    guest.run(body)
    assert not any("not found" in line for line in guest.log)


@pytest.mark.parametrize("fails", [False, True])
def test_containers_being_created_are_waited_for(guest: Guest, fails: bool) -> None:
    async def body() -> None:
        creations = {name: (guest.steps.hold(f"create {name}"), start(guest.add(name))) for name in ("a1", "b1")}
        await guest.steps.reached("create a1")  # the other waits for the first of all
        if fails:
            guest.steps.fails["create b1"] = StepFailed("fork", "no process")
        ending = start(guest.sandbox.destroy())
        for name, (held, creating) in creations.items():
            assert not ending.done, name
            held.set()
            if fails and name == "b1":
                with pytest.raises(StepFailed, match="no process"):
                    await creating.wait()
            else:
                await creating.wait()
        await ending.wait()
        assert (guest.ids, "remove a1" in guest.steps.taken, "remove b1" in guest.steps.taken) == ([], True, not fails)

    guest.run(body)
    assert not any("still being created" in line for line in guest.log)


def test_a_creation_that_hangs_is_waited_for_no_longer_than_the_limit(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "CREATING_SECONDS", 0.01)

    async def body() -> None:
        guest.steps.hold("create a1")
        creating = start(guest.add("a1"))
        await guest.steps.reached("create a1")
        await guest.sandbox.destroy()
        assert (guest.sandbox.ended.is_set, creating.done) == (True, False)
        await cancelled(creating)
        with pytest.raises(NotFound):
            guest.sandbox.containers.get("a1")

    guest.run(body)
    assert any("containers still being created after 0.01 s: a1" in line for line in guest.log)


def test_a_device_is_recorded_also_if_the_client_goes(guest: Guest) -> None:
    """Nothing would release it otherwise."""
    held = guest.steps.hold("swapon")

    async def body() -> None:
        adding = start(guest.sandbox.add_swap("/dev/vdz"))
        await guest.steps.reached("swapon")
        await cancelled(adding)
        held.set()
        await guest.steps.reached("swapon")
        while not guest.swaps:
            await loop.sleep(0)
        await guest.sandbox.destroy()
        assert (guest.swaps, guest.steps.taken[-1]) == ([], "swapoff")

    guest.run(body)
