"""Containers of the sandbox by id: created or not there at all, and removed once."""

from typing import Any

import pytest

from agent import loop
from agent.errors import AgentError, AlreadyExists, NotFound, Refused, StepFailed, WrongState
from innkeeper.wire.pb.agent_pb2 import CreateContainerRequest
from tests.unit.agent.fake_guest import KILLED, Guest, cancelled, start
from tests.unit.container.documents import SMALL, changed


async def nothing_of(guest: Guest, id: str) -> None:
    """See that a failed creation left nothing, and that the same id and storage can be used again."""
    with pytest.raises(NotFound):
        guest.sandbox.containers.get(id)
    assert (guest.ids, guest.mounts.mounts, guest.sandbox.containers._creating, await guest.published()) == ([], {}, set(), [])
    await guest.add(id, guest.storage("volume"))
    assert (guest.ids, set(guest.mounts.mounts)) == ([id], {str(guest.folder / "volume")})


# create


def test_a_container_joins_the_namespaces_of_the_sandbox(guest: Guest) -> None:
    async def body() -> None:
        await guest.create()
        init = await guest.add("box", guest.storage("volume"), exec_id="main")
        container = guest.sandbox.containers.get("box")
        assert (init.exec_id, container.init, container.host.namespaces) == ("main", init, guest.sandbox.containers.namespaces.paths)
        assert set(guest.sandbox.containers.namespaces.paths) == {"ipc", "uts"}
        ((listed, created),) = guest.sandbox.containers.with_creation_times()
        assert (listed, created > 1e9) == (container, True)

    guest.run(body)
    assert any("a warning of box" in line for line in guest.log)


@pytest.mark.parametrize("id", ["", "x", "-x", ".x", "a/b", "..", "a b", "a\n", "é1", "x" * 256])
def test_ids_that_are_no_name_of_a_file_are_refused(guest: Guest, id: str) -> None:
    async def body() -> None:
        with pytest.raises(Refused, match="container_id: "):
            await guest.add(id, guest.storage("volume"))
        await guest.add("box")
        if id:  # an empty one stands for the container's
            with pytest.raises(Refused, match="exec_id: "):
                await guest.add("other", guest.storage("volume"), exec_id=id)
        with pytest.raises(Refused, match="exec_id: "):
            await guest.exec("box", id)
        assert (guest.ids, guest.mounts.mounts) == (["box"], {})

    guest.run(body)


@pytest.mark.parametrize("id", ["ab", "9.", "A_-.z", "x" * 255])
def test_ids_that_are_accepted(guest: Guest, id: str) -> None:
    async def body() -> None:
        await guest.add(id)
        assert guest.ids == [id]

    guest.run(body)


def test_an_id_is_taken_from_the_first_moment_on(guest: Guest) -> None:
    async def body() -> None:
        held = guest.steps.hold("create box")
        creating = start(guest.add("box", guest.storage("volume")))
        await guest.steps.reached("create box")
        with pytest.raises(AlreadyExists, match="container 'box' exists"):
            await guest.add("box", guest.storage("volume"))
        held.set()
        await creating.wait()
        with pytest.raises(AlreadyExists, match="container 'box' exists"):
            await guest.add("box", guest.storage("volume"))
        assert (guest.sandbox.storages.users(str(guest.folder / "volume")), len(guest.processes)) == (1, 1)

    guest.run(body)


@pytest.mark.parametrize("step", ["specification", "storages", "container"])
def test_a_creation_that_fails_leaves_nothing(guest: Guest, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    monkeypatch.setattr(guest.sandbox.containers.translator, "forget", forgotten.append)
    request = CreateContainerRequest(container_id="box", storages=[guest.storage("volume"), guest.storage("other")])
    document: dict[str, Any] = dict(SMALL)
    if step == "specification":
        del document["root"]
    elif step == "storages":
        request.storages[1].fstype = "ext4"
    else:
        guest.steps.fails["create box"] = StepFailed("fork", "no process", 11)

    async def body() -> None:
        with pytest.raises(AgentError, match={"specification": "root", "storages": "fstype", "container": "no process"}[step]):
            await guest.sandbox.containers.create(request, document)
        assert forgotten == ["box"]
        await nothing_of(guest, "box")

    guest.run(body)


def test_a_creation_whose_client_goes_leaves_nothing(guest: Guest) -> None:
    async def body() -> None:
        held = guest.steps.hold("create box")
        creating = start(guest.add("box", guest.storage("volume")))
        await guest.steps.reached("create box")
        assert set(guest.mounts.mounts) == {str(guest.folder / "volume")}
        await cancelled(creating)
        held.set()
        assert guest.processes[0].exit_status == KILLED
        await nothing_of(guest, "box")

    guest.run(body)


def test_a_volume_is_kept_once_a_container_has_used_it(guest: Guest) -> None:
    """That of a failed creation is not: the host does not know about it."""

    async def body() -> None:
        point = str(guest.folder / "volume")
        for fails in (True, False):
            if fails:
                guest.steps.fails["create box"] = StepFailed("fork", "no process")
                with pytest.raises(StepFailed):
                    await guest.add("box", guest.storage("volume"))
            else:
                await guest.add("box", guest.storage("volume"))
                await guest.sandbox.containers.remove("box")
            assert (point in guest.mounts.mounts) is not fails

    guest.run(body)


def test_the_first_container_is_created_alone(guest: Guest) -> None:
    """The others of a shared pid namespace join the first one's, and are refused once that has ended."""

    async def body() -> None:
        held = guest.steps.hold("create a1")
        tasks = [start(guest.add(name, sandbox_pidns=True)) for name in ("a1", "b1")]
        await guest.steps.reached("create a1")
        for _ in range(5):
            await loop.sleep(0)
        assert "create b1" not in guest.steps.taken
        held.set()
        first = await tasks[0].wait()
        await tasks[1].wait()
        assert guest.sandbox.containers.get("a1").host.pid_namespace is None
        assert guest.sandbox.containers.get("b1").host.pid_namespace == f"/proc/{first.pid}/ns/pid"
        first.end(0)
        with pytest.raises(WrongState, match="pid namespace has ended with its first container, 'a1'"):
            await guest.add("c1", sandbox_pidns=True)
        await guest.sandbox.containers.remove("a1")
        await guest.add("c1", sandbox_pidns=True)

    guest.run(body)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("number", "ends", "error"), [(12, True, WrongState), (12, False, StepFailed), (11, True, StepFailed)])
def test_out_of_memory_may_mean_that_the_pid_namespace_ends(
    guest: Guest, number: int, ends: bool, error: type[AgentError], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox's, or that of another container."""
    monkeypatch.setattr("agent.pod.namespaces.ENDING_SECONDS", 20 if ends else 0.01)

    async def body() -> None:
        first = await guest.add("a1", sandbox_pidns=True)
        held = guest.steps.hold("create b1")
        guest.steps.fails["create b1"] = StepFailed("fork", "no luck", number)
        joining = changed("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "container:a1"}])
        request = CreateContainerRequest(container_id="b1", sandbox_pidns=shared)
        creating = start(guest.sandbox.containers.create(request, SMALL if shared else joining))
        await guest.steps.reached("create b1")
        held.set()
        await loop.sleep(0)
        if ends:
            first.end(0)
        with pytest.raises(AgentError) as caught:
            await creating.wait()
        assert (type(caught.value), guest.ids) == (error, ["a1"])

    guest.run(body)


def test_pipes_have_the_size_of_the_settings(guest: Guest) -> None:
    guest.sandbox.containers._settings.container_pipe_size = 8192

    async def body() -> None:
        init = await guest.add("box")
        added = await guest.exec("box", "more")
        assert [process.stdio._pipe_size for process in (init, added)] == [8192, 8192]

    guest.run(body)


# remove


def test_a_removed_container_is_gone(guest: Guest) -> None:
    async def body() -> None:
        await guest.create()
        await guest.add("box", guest.storage("volume"))
        await guest.sandbox.containers.remove("box")
        assert (guest.ids, guest.sandbox.containers._created, guest.sandbox.containers._mount_points) == ([], {}, {})
        for call in (guest.sandbox.containers.remove("box"), guest.sandbox.containers.start("box"), guest.exec("box", "more")):
            with pytest.raises(NotFound, match="container 'box' not found"):
                await call
        await guest.add("box", guest.storage("volume"))

    guest.run(body)


def test_a_second_removal_waits_for_the_first(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box", guest.storage("volume"))
        held = guest.steps.hold("remove box")
        calls = [start(guest.sandbox.containers.remove("box")) for _ in range(3)]
        await guest.steps.reached("remove box")
        await loop.sleep(0)
        assert [call.done for call in calls] == [False] * 3
        held.set()
        for call in calls:
            await call.wait()
        assert (guest.ids, guest.steps.taken.count("remove box"), guest.sandbox.containers._removing) == ([], 1, {})

    guest.run(body)


def test_a_second_removal_tries_again_what_has_failed(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        held = guest.steps.hold("remove box")
        guest.steps.fails["remove box"] = StepFailed("remove cgroup", "busy")
        first, second = start(guest.sandbox.containers.remove("box")), start(guest.sandbox.containers.remove("box"))
        await guest.steps.reached("remove box")
        held.set()
        with pytest.raises(StepFailed, match="busy"):
            await first.wait()
        await second.wait()
        assert (guest.ids, guest.steps.taken.count("remove box")) == ([], 2)

    guest.run(body)


def test_a_second_removal_leaves_a_new_container_of_the_same_id(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box")
        held = guest.steps.hold("remove box")
        first, second = start(guest.sandbox.containers.remove("box")), start(guest.sandbox.containers.remove("box"))
        await guest.steps.reached("remove box")
        held.set()
        while guest.ids:
            await loop.sleep(0)
        await guest.add("box")
        await first.wait()
        await second.wait()
        assert (guest.ids, guest.steps.taken.count("remove box")) == (["box"], 1)

    guest.run(body)


def test_a_removal_goes_on_when_its_client_goes(guest: Guest) -> None:
    async def body() -> None:
        await guest.add("box", guest.storage("volume"))
        held = guest.steps.hold("remove box")
        removing = start(guest.sandbox.containers.remove("box"))
        await guest.steps.reached("remove box")
        await cancelled(removing)
        assert guest.ids == ["box"]
        held.set()
        await guest.sandbox.containers.remove("box")
        assert (guest.ids, guest.steps.taken.count("remove box")) == ([], 1)

    guest.run(body)
