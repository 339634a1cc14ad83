"""Fields with a kernel interface of their own, read back inside: interfaces, memory policy, processors, delegation, absent programs."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.lifecycle import Status
from agent.container.spec.document import parse_process
from agent.errors import Refused, StepFailed, WrongState
from agent.linux import numa
from tests.root.container_helpers import FIRST, Box, Document, execute, finish, open_parents, with_users

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]
SIOCGIFFLAGS, IFF_UP = 0x8913, 1
IOPRIO_GET = {"x86_64": 252, "aarch64": 31}


@pytest.fixture
def veth() -> Iterator[tuple[str, str]]:
    """A pair of interfaces; the second has an address and stays, the first is for a container."""
    names = f"ik{os.getpid() % 100000}a", f"ik{os.getpid() % 100000}b"
    subprocess.run(["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]], check=True)
    try:
        subprocess.run(["ip", "address", "add", "192.0.2.7/24", "broadcast", "192.0.2.255", "dev", names[0]], check=True)
        subprocess.run(["ip", "address", "add", "2001:db8::7/64", "nodad", "dev", names[0]], check=True)
        subprocess.run(["ip", "link", "set", names[0], "up"], check=True)
        yield names
    finally:
        subprocess.run(["ip", "link", "delete", names[1]], check=False, stderr=subprocess.DEVNULL)


def is_up(name: str) -> bool:
    with socket.socket() as any_socket:
        flags = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh22x", name.encode(), 0))
    return bool(struct.unpack_from("16xh", flags)[0] & IFF_UP)


def names_here() -> set[str]:
    return {name for _index, name in socket.if_nameindex()}


INTERFACES = (
    "cat /proc/net/dev | grep -c up0; grep -c 192.0.2.7 /proc/net/fib_trie; grep -c 20010db8000000000000000000000007 /proc/net/if_inet6;"
    " cat /sys/class/net/up0/flags; cat /proc/sys/net/ipv4/conf/up0/forwarding"
)


@pytest.mark.needs("ip")
@pytest.mark.parametrize("users", [False, True])
def test_an_interface_moves_with_its_addresses(own_root: Path, box: Box, veth: tuple[str, str], users: bool) -> None:
    doc = box.document("sh", "-c", INTERFACES)
    doc["linux"]["netDevices"] = {veth[0]: {"name": "up0"}}
    doc["linux"]["sysctl"] = {"net.ipv4.conf.up0.forwarding": "1"}  # it is there before sysctls are written
    if users:
        with_users(doc)
        open_parents(own_root)
    device, address, address6, flags, forwarding = box.run(doc).stdout.split()
    assert (device, int(address) >= 1, address6, forwarding) == ("1", True, "1", "1")
    assert int(flags, 16) & IFF_UP


@pytest.mark.needs("ip")
@pytest.mark.parametrize(("asked", "expected"), [({}, None), ({"name": "eth%d"}, "eth0")])
def test_an_interface_keeps_its_name_or_gets_the_first_free_number(
    box: Box, veth: tuple[str, str], asked: Document, expected: str | None
) -> None:
    doc = box.document("ls", "/sys/class/net")
    doc["linux"]["netDevices"] = {veth[0]: asked}
    assert box.run(doc).stdout.split() == sorted(["lo", expected or veth[0]])


@pytest.mark.needs("ip")
def test_an_interface_that_is_not_there_or_whose_name_is_taken(box: Box, veth: tuple[str, str]) -> None:
    doc = box.document("true")
    doc["linux"]["netDevices"] = {"no-such0": {}}
    with pytest.raises(Refused, match=r"linux.netDevices.no-such0: no interface"):
        box.run(doc)
    doc["linux"]["netDevices"] = {veth[1]: {"name": "fine0"}, veth[0]: {"name": "lo"}}
    with pytest.raises(Refused, match=rf"linux.netDevices.{veth[0]}.name: 'lo' exists"):
        box.run(doc)
    assert set(veth) <= names_here()  # the one that had been moved is back


@pytest.mark.needs("ip")
def test_no_interface_moves_into_the_agents_own_namespace(box: Box, veth: tuple[str, str]) -> None:
    doc = box.document("true")
    doc["linux"]["netDevices"] = {veth[0]: {}}
    doc["linux"]["namespaces"][4] = {"type": "network", "path": "/proc/self/ns/net"}
    with pytest.raises(Refused, match=r"linux.netDevices: the network namespace is not the container's own"):
        box.run(doc)


def test_memory_policy(box: Box) -> None:
    doc = box.document("cat", "/proc/self/numa_maps")
    doc["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    if not numa.knows_mode(2):
        with pytest.raises(Refused, match=r"linux.memoryPolicy"):
            box.run(doc)
        return
    assert "bind=static:0" in box.run(doc).stdout
    doc["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "700"}
    with pytest.raises(StepFailed, match="set scheduling: set_mempolicy"):
        box.run(doc)


def test_a_kernel_without_memory_policies_is_told_by_its_option(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numa, "knows_mode", lambda mode: False)
    doc = box.document("true")
    doc["linux"]["memoryPolicy"] = {"mode": "MPOL_LOCAL"}
    with pytest.raises(Refused, match=r"linux.memoryPolicy: .*CONFIG_NUMA"):
        box.run(doc)


ALLOWED = "grep Cpus_allowed_list /proc/self/status"


def cpus(text: str) -> str:
    return text.split()[-1]


def test_processors_of_an_executed_program(box: Box) -> None:
    last = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)

    async def use(container: Container) -> None:
        for number, (affinity, expected) in enumerate(
            (({"initial": "0"}, "0"), ({"final": str(last)}, str(last)), ({"initial": "0", "final": str(last)}, str(last)))
        ):
            result = await execute(container, "sh", "-c", ALLOWED, exec_id=f"e{number}", execCPUAffinity=affinity)
            assert cpus(result.stdout) == expected
        with pytest.raises(Refused, match=r"process.execCPUAffinity.initial: none of"):
            await execute(container, "true", exec_id="e9", execCPUAffinity={"initial": "5000"})
        with pytest.raises(StepFailed, match="set scheduling"):
            await execute(container, "true", exec_id="e10", execCPUAffinity={"final": "5000"})

    box.during(box.document("sleep", "9"), use)
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(("kind", "number"), [("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3), ("IOPRIO_CLASS_RT", 1)])
def test_priority_of_input_and_output(box: Box, kind: str, number: int) -> None:
    """Of the process group, so of what the program starts as well (ioprio_get(2), asked from outside)."""
    doc = box.document("sleep", "9")
    doc["process"]["ioPriority"] = {"class": kind, "priority": 5}

    async def use(container: Container) -> int:
        return int(ctypes.CDLL(None).syscall(IOPRIO_GET[os.uname().machine], 1, container.init.pid))

    assert box.during(doc, use) == number << 13 | 5


def test_a_container_without_a_process_can_be_created_and_not_started(box: Box) -> None:
    doc = box.document()
    del doc["process"]

    async def main() -> None:
        container = await box.create(doc)
        assert container.status is Status.CREATED
        with pytest.raises(Refused, match="process: missing"):
            await container.start()
        result = await execute(container, "sh", "-c", "hostname; ls /proc | grep -c '^1$'")
        assert result.stdout.split() == ["box", "1"]
        await container.remove()

    loop.run(main())


@pytest.mark.parametrize(
    ("changes", "delegated"),
    [
        ({"options": ["rw"]}, True),
        ({"options": ["ro"]}, False),
        ({"options": ["rw"], "users": False}, False),
        ({"options": ["rw"], "cgroup": False}, False),
    ],
)
def test_a_group_that_its_users_may_manage(own_root: Path, box: Box, changes: Document, delegated: bool) -> None:
    doc = box.document("sleep", "9")
    doc["mounts"][-1]["options"] = ["nosuid", *changes["options"]]
    doc["process"]["user"] = {"uid": 5, "gid": 5}
    if changes.get("users", True):
        with_users(doc)
        open_parents(own_root)
    if not changes.get("cgroup", True):
        doc["linux"]["namespaces"] = [entry for entry in doc["linux"]["namespaces"] if entry["type"] != "cgroup"]

    async def use(container: Container) -> Any:
        assert container.cgroup is not None
        owners = {
            name: (container.cgroup.path / name).stat().st_uid for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.freeze")
        }
        made = await execute(container, "mkdir", "/sys/fs/cgroup/mine", user={"uid": 5, "gid": 5})
        return owners, made.status

    owners, status = box.during(doc, use)
    expected = FIRST + 5 if delegated else 0
    assert owners == {"": expected, "cgroup.procs": expected, "cgroup.subtree_control": expected, "cgroup.freeze": 0}
    assert (status == 0) is delegated


@pytest.mark.parametrize(
    ("kind", "name", "sysctl"),
    [("network", "net", "net.ipv4.ip_forward"), ("ipc", "ipc", "kernel.msgmax"), ("uts", "uts", "kernel.domainname")],
)
def test_a_sysctl_of_the_agents_own_namespace_is_refused(box: Box, kind: str, name: str, sysctl: str) -> None:
    """A path makes a namespace the container's own only if it is another than the agent's."""
    doc = box.document("true")
    doc["hostname"] = ""
    doc["linux"]["sysctl"] = {sysctl: "1"}
    for entry in doc["linux"]["namespaces"]:
        if entry["type"] == kind:
            entry["path"] = f"/proc/self/ns/{name}"
    with pytest.raises(Refused, match=rf"linux.sysctl.{sysctl}: the {name} namespace is not the container's own"):
        box.run(doc)


def test_a_capability_that_the_agent_lacks_is_warned_of(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The specification wants that, and not a failure; CAP_AUDIT_READ stands for whatever the agent may lack."""
    lacking = 37
    held = ~(1 << lacking) & ((1 << 41) - 1)
    monkeypatch.setattr("agent.container.init.prepare.capget", lambda: (held, held, 0))
    doc = box.document("sh", "-c", "grep CapPrm /proc/self/status")
    for names in doc["process"]["capabilities"].values():
        names.append("CAP_AUDIT_READ")

    async def main() -> Any:
        container = await box.create(doc)
        try:
            await container.start()
            container.init.stdio.close_stdin()
            return container.warnings, await finish(container.init)
        finally:
            await container.remove()

    warnings, result = loop.run(main())
    assert int(result.stdout.split()[1], 16) >> lacking & 1 == 0
    assert [warning.partition(":")[0] for warning in warnings] == ["process.capabilities.permitted", "process.capabilities.effective"]
    assert all("CAP_AUDIT_READ, not granted" in warning for warning in warnings)


def test_an_executed_program_in_a_time_namespace_before_the_start(box: Box) -> None:
    """The first process enters it with its program; who is executed before that is in it as well."""
    doc = box.document("sleep", "9")
    doc["linux"]["namespaces"].append({"type": "time"})
    doc["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}

    async def main() -> Any:
        container = await box.create(doc)
        try:
            return await execute(container, "sh", "-c", "cut -d. -f1 /proc/uptime")
        finally:
            await container.remove()

    assert int(loop.run(main()).stdout) >= 1_000_000


@pytest.mark.skipif(not os.path.exists("/proc/keys"), reason="this kernel has no keyrings (CONFIG_KEYS), so none can leak")
def test_keys_are_the_containers_own(box: Box) -> None:
    """The session keyring is new, and nobody but who possesses it may even see it: not the agent, though it is the same user."""
    doc = box.document("sleep", "9")
    doc["linux"]["maskedPaths"].remove("/proc/keys")

    def keyrings(text: str) -> set[str]:
        return {line.split()[0] for line in text.splitlines() if "keyring" in line and "_ses" in line}

    async def use(container: Container) -> Any:
        inside = (await execute(container, "cat", "/proc/keys")).stdout
        return inside, Path("/proc/keys").read_text()

    before = keyrings(Path("/proc/keys").read_text())
    inside, outside = box.during(doc, use)
    assert keyrings(outside) == before
    (own,) = keyrings(inside) - before
    assert any(line.startswith(own) and " 3f000000 " in line for line in inside.splitlines())


def test_devices_that_the_image_has_already(own_root: Path, box: Box) -> None:
    """A node of the same numbers gets mode and owner as asked; another file in its place is an error."""
    own = Box(own_root, box.host, "box")
    os.mknod(own_root / "node", 0o20600, os.makedev(1, 5))
    doc = own.document("stat", "-c", "%t:%T %a %u:%g", "/node")
    doc["linux"]["devices"] = [{"path": "/node", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 3, "gid": 4}]
    assert own.run(doc).stdout.strip() == "1:5 644 3:4"
    doc["linux"]["devices"][0]["minor"] = 3
    with pytest.raises(StepFailed, match="another file is in the device's place"):
        own.run(doc)


def test_a_device_that_is_mounted_from_elsewhere_stays_as_it_is(box: Box, tmp_path: Path) -> None:
    """It is the agent's own node: who lists it as well must not change it for everybody."""
    node = tmp_path / "node"
    os.mknod(node, 0o20600, os.makedev(1, 5))
    doc = box.document("stat", "-c", "%t:%T %a", "/dev/own", "/dev//zero")
    doc["mounts"] += [
        {"destination": "/dev/own", "type": "bind", "source": str(node)},
        {"destination": "/dev/zero", "type": "bind", "source": str(node)},
    ]
    entry = {"type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 3, "gid": 4}
    doc["linux"]["devices"] = [{"path": "/dev/own", **entry}, {"path": "/dev//./zero", **entry}]
    assert box.run(doc).stdout.splitlines() == ["1:5 600", "1:5 600"]
    assert (node.stat().st_uid, node.stat().st_gid, node.stat().st_mode & 0o777) == (0, 0, 0o600)


def test_nothing_is_made_in_a_dev_that_is_not_the_containers_own(box: Box) -> None:
    doc = box.document("sleep", "9")
    doc["linux"]["devices"] = [{"path": "/dev/innkeeper-test", "type": "c", "major": 1, "minor": 5}]
    for mount in ({"type": "bind", "source": "/dev"}, {"type": "devtmpfs", "source": "dev"}):
        doc["mounts"] = [box.document()["mounts"][0], {"destination": "/dev", **mount}]

        async def use(container: Container) -> list[str]:
            return container.warnings

        assert box.during(doc, use) == ["linux.devices[0]: not made, /dev is not the container's own"]
        assert not os.path.exists("/dev/innkeeper-test")


def test_devices_in_a_user_namespace_that_are_mounted_already(own_root: Path, box: Box) -> None:
    open_parents(own_root)
    doc = with_users(box.document("stat", "-c", "%t:%T", "/dev/null"))
    doc["mounts"].append({"destination": "/dev/null", "type": "bind", "source": "/dev/null"})
    assert box.run(doc).stdout.strip() == "1:3"


def test_devices_in_a_user_namespace_are_the_agents_own(own_root: Path, box: Box) -> None:
    open_parents(own_root)
    doc = with_users(box.document("stat", "-c", "%t:%T", "/dev/full2", "/dev/pipe"))
    doc["linux"]["devices"] = [{"path": "/dev/full2", "type": "c", "major": 1, "minor": 7}]
    with pytest.raises(Refused, match=r"linux.devices\[0\]: /dev/full2: No such file"):
        box.run(doc)
    doc["linux"]["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 7}]
    with pytest.raises(Refused, match=r"linux.devices\[0\]: /dev/kmsg is another device here"):
        box.run(doc)
    doc["process"]["args"] = ["stat", "-c", "%t:%T %F", "/dev/kmsg", "/dev/pipe"]
    doc["linux"]["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}, {"path": "/dev/pipe", "type": "p"}]
    assert box.run(doc).stdout.splitlines() == ["1:b character special file", "0:0 fifo"]


def test_a_cgroups_path_from_the_hierarchys_root(box: Box) -> None:
    """Only for a caller who says so: a guest keeps every container below its own group."""
    root = box.host.cgroup_root
    host = HostContext(root / "unused", box.host.state_dir, cgroup_mount=root)
    doc = box.document("sleep", "9")
    doc["linux"]["cgroupsPath"] = "/up/here"

    async def main() -> tuple[Path, Path]:
        inside = await box.create(doc)
        assert inside.cgroup is not None
        path = inside.cgroup.path
        await inside.remove()
        container = await box.create(doc, host)
        assert container.cgroup is not None
        other = container.cgroup.path
        await container.remove()
        return path, other

    assert loop.run(main()) == (root / "up/here", root / "up/here")


def test_exec_in_a_stopped_or_paused_container_is_refused(box: Box) -> None:
    async def use(container: Container) -> None:
        await container.pause()
        with pytest.raises(WrongState):
            await container.exec("e1", parse_process({"args": ["true"]}))
        await container.resume()

    box.during(box.document("sleep", "9"), use)
