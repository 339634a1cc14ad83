"""User namespaces with mappings, time namespaces with offsets, mounts with translated owners."""

import os
from typing import Any

import pytest

from agent.container.container import Container
from agent.errors import Refused
from tests.root.container_helpers import COUNT, FIRST, Box, Document, execute, finish, with_users

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def test_mapped_users(mapped: Box) -> None:
    script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; touch /tmp/mine; echo x > /dev/null; echo $?; stat -c %t:%T /dev/null"
    doc = with_users(mapped.document("sh", "-c", script))
    lines = mapped.run(doc).stdout.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(FIRST), str(COUNT)]
    assert lines[2:] == ["allow", "0", "1:3"]
    assert os.stat(mapped.root / "tmp/mine").st_uid == FIRST


def test_no_power_over_the_host(mapped: Box) -> None:
    doc = with_users(mapped.document("sh", "-c", "mknod /tmp/n c 1 3; echo 1 > /proc/sys/kernel/panic; date -s 2000-01-01"))
    result = mapped.run(doc)
    assert result.stderr.count("ermitted") + result.stderr.count("Read-only") + result.stderr.count("denied") >= 3


def test_exec_in_a_user_namespace(mapped: Box) -> None:
    async def use(container: Container) -> Any:
        user = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
        return await execute(container, "sh", "-c", "id -u; id -G; readlink /proc/self/ns/user; readlink /proc/1/ns/user", user=user)

    result = mapped.during(with_users(mapped.document("sleep", "9")), use)
    uid, groups, *namespaces = result.stdout.splitlines()
    assert (uid, groups) == ("1000", "1000 7")
    assert namespaces[0] != os.readlink("/proc/self/ns/user")


def test_terminal_in_a_user_namespace(mapped: Box) -> None:
    doc = with_users(mapped.document("sh", "-c", "test -t 0 && echo terminal"))
    doc["process"]["terminal"] = True
    assert "terminal" in mapped.run(doc).stdout


def test_user_namespace_in_a_shared_uts_and_ipc(mapped: Box) -> None:
    async def use(container: Container) -> Any:
        doc = with_users(mapped.document("sh", "-c", "hostname; readlink /proc/self/ns/ipc"))
        doc["hostname"] = ""
        for namespace in doc["linux"]["namespaces"]:
            if namespace["type"] in ("uts", "ipc"):
                namespace["path"] = f"/proc/{container.init.pid}/ns/{namespace['type']}"
        doc["mounts"] = [mount for mount in doc["mounts"] if mount["type"] != "mqueue"]
        return os.readlink(f"/proc/{container.init.pid}/ns/ipc"), await _run(Box(mapped.root, mapped.host, "box2"), doc)

    ipc, result = mapped.during(mapped.document("sleep", "9"), use)
    assert result.stdout.split() == ["box", ipc]
    assert os.readlink("/proc/self/ns/ipc") != ipc  # the agent has come back


async def _run(box: Box, doc: Document) -> Any:
    container = await box.create(doc)
    try:
        await container.start()
        return await finish(container.init)
    finally:
        await container.remove()


def test_an_unmapped_user_is_an_error(mapped: Box) -> None:
    doc = with_users(mapped.document("true"))
    doc["process"]["user"] = {"uid": COUNT, "gid": 0}
    with pytest.raises(Refused, match=r"process.user.uid: 65536 is not mapped"):
        mapped.run(doc)


def test_joining_a_user_namespace(mapped: Box) -> None:
    """With new namespaces of every other kind, owned by the one that is joined."""

    async def use(container: Container) -> Any:
        script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; echo $$; hostname; touch /tmp/joined && mount -t tmpfs t /tmp"
        doc = mapped.document("sh", "-c", script)
        doc["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{container.init.pid}/ns/user"})
        for names in doc["process"]["capabilities"].values():
            names.append("CAP_SYS_ADMIN")
        return os.readlink(f"/proc/{container.init.pid}/ns/user"), await _run(Box(mapped.root, mapped.host, "box2"), doc)

    user, result = mapped.during(with_users(mapped.document("sleep", "9")), use)
    assert (result.stderr, result.status) == ("", 0)
    uid, mappings, inside, pid, hostname = result.stdout.splitlines()
    assert (uid, mappings.split(), inside) == ("0", ["0", str(FIRST), str(COUNT)], user)
    assert (pid, hostname) == ("1", "box")
    assert os.stat(mapped.root / "tmp/joined").st_uid == FIRST


def test_joining_every_namespace_of_a_container_with_users(mapped: Box) -> None:
    async def use(container: Container) -> Any:
        doc = mapped.document("sh", "-c", "hostname; ps -o args | grep -cx 'sleep 9'; id -u; readlink /proc/self/ns/net")
        names = {"user": "user", "network": "net", "uts": "uts", "ipc": "ipc", "pid": "pid", "cgroup": "cgroup"}
        joined = [{"type": kind, "path": f"/proc/{container.init.pid}/ns/{name}"} for kind, name in names.items()]
        doc["linux"]["namespaces"] = [{"type": "mount"}, *joined]
        doc["process"]["user"] = {"uid": 1000, "gid": 1000}
        doc["hostname"] = ""
        return os.readlink(f"/proc/{container.init.pid}/ns/net"), await _run(Box(mapped.root, mapped.host, "box2"), doc)

    net, result = mapped.during(with_users(mapped.document("sleep", "9")), use)
    assert result.stdout.split() == ["box", "1", "1000", net]


def test_mappings_listed_for_a_joined_namespace_agree_with_it(mapped: Box) -> None:
    async def use(container: Container) -> Any:
        doc = with_users(mapped.document("id", "-u"))
        doc["linux"]["namespaces"][-1]["path"] = f"/proc/{container.init.pid}/ns/user"
        result = await _run(Box(mapped.root, mapped.host, "box2"), doc)
        doc["linux"]["gidMappings"] = [{"containerID": 0, "hostID": FIRST + 1, "size": COUNT}]
        with pytest.raises(Refused, match=r"linux.gidMappings: the user namespace that is joined has others"):
            await _run(Box(mapped.root, mapped.host, "box2"), doc)
        return result

    assert mapped.during(with_users(mapped.document("sleep", "9")), use).stdout == "0\n"


def test_a_user_that_the_joined_namespace_does_not_map(mapped: Box) -> None:
    async def use(container: Container) -> None:
        doc = mapped.document("true")
        doc["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{container.init.pid}/ns/user"})
        doc["process"]["user"] = {"uid": COUNT, "gid": 0}
        with pytest.raises(Refused, match=r"process.user.uid: 65536 is not mapped"):
            await _run(Box(mapped.root, mapped.host, "box2"), doc)

    mapped.during(with_users(mapped.document("sleep", "9")), use)


def test_exec_in_a_joined_user_namespace(mapped: Box) -> None:
    async def use(container: Container) -> Any:
        doc = mapped.document("sleep", "9")
        doc["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{container.init.pid}/ns/user"})
        second = await Box(mapped.root, mapped.host, "box2").create(doc)
        try:
            await second.start()
            return await execute(second, "sh", "-c", "id -u; cat /proc/self/uid_map; echo $$")
        finally:
            await second.remove()

    uid, mappings, pid = mapped.during(with_users(mapped.document("sleep", "9")), use).stdout.splitlines()
    assert (uid, mappings.split()) == ("0", ["0", str(FIRST), str(COUNT)])
    assert int(pid) > 1


def test_the_agents_own_user_namespace_cannot_be_joined(box: Box) -> None:
    doc = box.document("true")
    doc["linux"]["namespaces"].append({"type": "user", "path": "/proc/self/ns/user"})
    with pytest.raises(Refused, match=r"linux.namespaces\[user\].path: is the agent's own"):
        box.run(doc)


def test_time_offsets(box: Box) -> None:
    doc = box.document("sh", "-c", "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets")
    doc["linux"]["namespaces"].append({"type": "time"})
    doc["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5}}
    up, *offsets = box.run(doc).stdout.splitlines()
    assert int(up) >= 1_000_000
    assert [line.split()[:2] for line in offsets] == [["monotonic", "5"], ["boottime", "1000000"]]

    async def use(container: Container) -> Any:
        return await execute(container, "sh", "-c", "cut -d. -f1 /proc/uptime")

    doc["process"]["args"] = ["sleep", "9"]
    assert int(box.during(doc, use).stdout) >= 1_000_000
