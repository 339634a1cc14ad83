"""The sandbox while many create, use and remove containers at once, and its end at any moment: what is there works, and nothing is left."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import event_log, loop
from agent.errors import AlreadyExists, NotFound, StepFailed, WrongState
from innkeeper.wire.pb.agent_pb2 import Storage
from tests.descriptors import open_descriptors
from tests.unit.agent.fake_guest import KILLED, Guest, start
from tests.unit.storage import kernel

IDS = ("box-a", "box-b")
VOLUMES = ("one", "two")
TURNS = 30


class Client(NamedTuple):
    """Who creates a container, uses it for a while and removes it. Cancelled after some turns, if not None."""

    delay: int
    id: str
    volumes: tuple[str, ...]
    starts: bool
    keep: int
    cancelled_after: int | None


CLIENTS = st.lists(
    st.builds(
        Client,
        st.integers(0, 15),
        st.sampled_from(IDS),
        st.lists(st.sampled_from(VOLUMES), max_size=2, unique=True).map(tuple),
        st.booleans(),
        st.integers(0, 8),
        st.none() | st.integers(0, TURNS - 1),
    ),
    min_size=1,
    max_size=5,
)
FAILURES = st.sets(st.sampled_from([f"{step} {id}" for step in ("create", "start", "remove") for id in IDS]), max_size=2)


def new_guest(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, parks: int, fails: set[str]) -> Guest:
    """A guest of which every step and every worker parks, and some steps fail once."""

    async def slow(work: Callable[[], bytes | None], name: str, keep: Sequence[int] = (), given: Sequence[int] = ()) -> bytes:
        for _ in range(parks):
            await loop.sleep(0)
        return await kernel.run_here(work, name, keep, given)

    guest = Guest(patch, tmp_path_factory.mktemp("guest"))
    for module in kernel.WITH_WORKERS:
        patch.setattr(module, "run_in_worker", slow)
    guest.steps.parks = parks
    guest.steps.fails = {step: StepFailed(step, "no luck") for step in fails}
    return guest


async def live(guest: Guest, client: Client) -> None:
    """What a client does. It removes what it has created, whatever comes in between."""
    for _ in range(client.delay):
        await loop.sleep(0)
    points = [str(guest.folder / name) for name in client.volumes]
    try:
        init = await guest.add(client.id, *[Storage(driver="9p", source="tag", mount_point=point) for point in points])
    except (AlreadyExists, WrongState, StepFailed):
        return
    try:
        waiting = start(guest.sandbox.containers.wait(client.id, ""))
        await use(guest, client, points)
    finally:
        for _ in range(2):
            with suppress(NotFound, StepFailed):
                await guest.sandbox.containers.remove(client.id)
        with suppress(NotFound):
            assert await waiting.wait() == KILLED
    assert init.exit_status == KILLED


async def use(guest: Guest, client: Client, points: list[str]) -> None:
    """Start it and one more process in it, and see that its volumes are there until the sandbox ends."""
    try:
        if client.starts:
            await guest.sandbox.containers.start(client.id)
            await guest.exec(client.id, "more")
    except (NotFound, WrongState, StepFailed):
        return  # the sandbox is at its end, or the step was to fail
    for _ in range(client.keep):
        assert guest.sandbox._ending is not None or set(points) <= set(guest.mounts.mounts)
        if client.starts and client.id in guest.ids:
            assert guest.sandbox.containers.process(client.id, "more").exec_id == "more"
        await loop.sleep(0)


async def told(guest: Guest) -> dict[str, list[int]]:
    """What has been published of each container, without its added processes."""
    result: dict[str, list[int]] = {}
    for kind, id, exec_id, _status in await guest.published():
        if not exec_id and kind != event_log.STARTED:
            result.setdefault(id, []).append(kind)
    return result


@settings(max_examples=100, deadline=None)
@given(CLIENTS, st.integers(0, 3), FAILURES, st.none() | st.integers(0, TURNS - 1))
def test_any_order(
    tmp_path_factory: pytest.TempPathFactory, clients: list[Client], parks: int, fails: set[str], destroyed_after: int | None
) -> None:
    """Create, start, exec and remove in any order, with failures and cancellations, and the sandbox's end at any moment."""
    with pytest.MonkeyPatch.context() as patch:
        guest = new_guest(patch, tmp_path_factory, parks, fails)

        async def body() -> None:
            before = open_descriptors()
            await guest.create(storages=[Storage(driver="9p", source="tag", mount_point=str(guest.folder / "shared"))])
            tasks = [(client, start(live(guest, client))) for client in clients]
            ending: list[loop.Task[None]] = []

            async def destroy() -> None:
                await guest.sandbox.destroy()
                removed = {step for step in guest.steps.taken if step.startswith("remove")}
                assert {f"remove {id}" for id in guest.ids} <= removed & fails, "only one whose removal has failed may be there"
                assert (guest.mounts.mounts, guest.sandbox.containers._creating) == ({}, set())

            for turn in range(TURNS):
                for client, task in tasks:
                    if client.cancelled_after == turn:
                        task.cancel()
                if destroyed_after == turn:
                    ending.append(start(destroy()))
                await loop.sleep(0)
            for _, task in tasks:
                with suppress(loop.TaskCancelled):
                    await task.wait()
            while guest.sandbox.containers._removing:  # goes on though its caller was cancelled
                await loop.sleep(0)
            if not ending:
                # A removal that fails is tried again by its client, unless that was cancelled meanwhile.
                may_stay = {client.id for client in clients if client.cancelled_after is not None and f"remove {client.id}" in fails}
                assert set(guest.ids) <= may_stay
                assert guest.ids or list(guest.mounts.mounts) == [str(guest.folder / "shared")]
                ending.append(start(destroy()))
            await ending[0].wait()
            assert {process.exit_status for process in guest.processes} <= {KILLED}
            for id, kinds in (await told(guest)).items():
                whole, rest = kinds[: len(kinds) // 3 * 3], kinds[len(kinds) // 3 * 3 :]
                assert whole == [event_log.CREATED, event_log.EXITED, event_log.REMOVED] * (len(whole) // 3)
                assert rest == ([event_log.CREATED, event_log.EXITED] if id in guest.ids else [])
            assert open_descriptors() == before

        guest.run(body)
