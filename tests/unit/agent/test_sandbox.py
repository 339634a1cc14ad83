"""The sandbox itself: created once, undone when that fails, and what it keeps for all requests."""

from collections.abc import Sequence

import pytest

from agent import loop
from agent import sandbox as sandbox_module
from agent.errors import AlreadyExists, Refused, StepFailed, WrongState
from agent.policy.check import Denied
from agent.storage import manager
from agent.storage.manager import StorageManager
from innkeeper.wire.pb.agent_pb2 import CreateSandboxRequest, KernelModule, Storage
from tests.unit.agent.fake_guest import Guest, cancelled, start


def paths(guest: Guest) -> set[str]:
    """The namespaces of a sandbox that is there."""
    return {str(guest.folder / "namespaces" / kind) for kind in ("ipc", "uts")}


def undone(guest: Guest) -> bool:
    return (guest.sandbox.id, guest.namespaces, guest.mounts.mounts) == ("", set(), {})


def test_a_second_creation_is_refused(guest: Guest) -> None:
    async def body() -> None:
        await guest.create(hostname="host", storages=[guest.storage("shm")])
        assert (guest.sandbox.id, guest.hostnames, guest.namespaces) == ("pod", ["host"], paths(guest))
        with pytest.raises(AlreadyExists, match="sandbox pod is there already"):
            await guest.create(sandbox_id="other")
        assert (guest.sandbox.id, guest.namespaces) == ("pod", paths(guest))
        assert set(guest.mounts.mounts) == {str(guest.folder / "shm")}

    guest.run(body)


def test_a_sandbox_without_an_id_counts_as_created(guest: Guest) -> None:
    async def body() -> None:
        await guest.create(sandbox_id="")
        with pytest.raises(AlreadyExists):
            await guest.create(sandbox_id="")

    guest.run(body)


def test_what_an_earlier_guest_left_is_cleared(guest: Guest) -> None:
    (guest.state / "old").mkdir(parents=True)
    guest.run(guest.create)
    assert list(guest.state.iterdir()) == []


def test_names_of_servers_and_hooks_are_used(guest: Guest) -> None:
    guest.resolv_conf.write_text("")
    hook = guest.folder / "hooks/prestart/check"
    hook.parent.mkdir(parents=True)
    hook.touch(0o755)

    async def body() -> None:
        await guest.create(dns=["nameserver 1.1.1.1 "], guest_hook_path=str(guest.folder / "hooks"))
        await guest.add("box")
        assert [found.path for found in guest.sandbox.containers.get("box").spec.hooks.prestart] == [str(hook)]

    guest.run(body)
    assert (guest.state / "sandbox/resolv.conf").read_text() == "nameserver 1.1.1.1"


@pytest.mark.parametrize("step", ["namespaces", "storages", "dns"])
def test_a_creation_that_fails_is_undone_and_may_be_tried_again(guest: Guest, step: str) -> None:
    storages = [guest.storage("shm"), guest.storage("other")]
    guest.resolv_conf.mkdir()
    if step == "namespaces":
        guest.steps.fails["sandbox namespaces"] = OSError(28, "no space")
    elif step == "storages":
        storages[1].driver = "nonesuch"

    async def body() -> None:
        with pytest.raises({"namespaces": StepFailed, "storages": Refused, "dns": WrongState}[step]):
            await guest.create(storages=storages, dns=["nameserver 1.1.1.1"])
        assert undone(guest)
        await guest.create(storages=[guest.storage("shm")])
        assert (guest.sandbox.id, guest.namespaces) == ("pod", paths(guest))

    guest.run(body)


def test_hooks_that_cannot_be_read_leave_the_name_servers_alone(guest: Guest) -> None:
    """What is bound over /etc/resolv.conf stays: that is the last step."""
    guest.resolv_conf.touch()

    async def body() -> None:
        with pytest.raises(OSError):
            await guest.create(dns=["nameserver 1.1.1.1"], guest_hook_path="x" * 5000)
        assert undone(guest) and not (guest.state / "sandbox/resolv.conf").exists()

    guest.run(body)


def test_a_creation_whose_client_goes_is_undone(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mount_storages(table: StorageManager, requests: Sequence[Storage]) -> list[str]:
        await guest.steps.take("storages")
        return await manager.mount_storages(table, requests)

    monkeypatch.setattr(sandbox_module, "mount_storages", mount_storages)
    guest.steps.hold("storages")

    async def body() -> None:
        creating = start(guest.create(storages=[guest.storage("shm")]))
        await guest.steps.reached("storages")
        assert guest.namespaces == paths(guest)
        with pytest.raises(AlreadyExists):
            await guest.create()
        await cancelled(creating)
        assert undone(guest)

    guest.run(body)


def test_namespaces_are_unmade_also_if_a_storage_stays(guest: Guest) -> None:
    guest.resolv_conf.mkdir()
    guest.mounts.fails = {"umount2"}

    async def body() -> None:
        with pytest.raises(StepFailed, match="umount2 fails"):
            await guest.create(storages=[guest.storage("shm")], dns=["nameserver 1.1.1.1"])
        assert (guest.sandbox.id, guest.namespaces) == ("", set())
        guest.mounts.mounts.clear()

    guest.run(body)


def test_a_creation_is_undone_before_the_next_one_begins(guest: Guest) -> None:
    """Otherwise it would unmake the namespaces of the next one."""
    guest.resolv_conf.mkdir()

    async def again() -> None:
        while True:
            try:
                return await guest.create()
            except AlreadyExists:
                await loop.sleep(0)

    async def body() -> None:
        failing = start(guest.create(storages=[guest.storage("shm")], dns=["nameserver 1.1.1.1"]))
        following = start(again())
        with pytest.raises(WrongState):
            await failing.wait()
        await following.wait()
        assert (guest.sandbox.id, guest.namespaces) == ("pod", paths(guest))

    guest.run(body)


def test_what_a_guest_cannot_do_is_refused(guest: Guest) -> None:
    async def body() -> None:
        modules = [[KernelModule(name=name)] for name in ("nonesuch", "", "..", "kernel/parameters")]
        modules.append([KernelModule(name="kernel", parameters=["a=b"])])
        for field, value in (("hostname", "é" * 33), *(("kernel_modules", module) for module in modules)):
            with pytest.raises(Refused) as caught:
                await guest.create(**{field: value})
            assert caught.value.field == field
        assert undone(guest)
        await guest.create(hostname="é" * 32, kernel_modules=[KernelModule(name="kernel")])

    guest.run(body)


def test_a_policy_is_asked_once_there_is_one(guest: Guest) -> None:
    asked = ("grpc.AgentService", "CreateSandbox", CreateSandboxRequest())
    guest.sandbox.check_policy(*asked)
    guest.sandbox.policies.set("version = 1\nrpcs = ['DestroySandbox']")
    with pytest.raises(Denied, match="CreateSandbox"):
        guest.sandbox.check_policy(*asked)
    guest.sandbox.policies.set("version = 1\nrpcs = ['CreateSandbox']")
    guest.sandbox.check_policy(*asked)


def test_copies_go_on_from_request_to_request(guest: Guest) -> None:
    assert guest.sandbox.copies is guest.sandbox.copies
