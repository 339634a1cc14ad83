"""What holds inside: capabilities, descriptors, signals, masks, read-only paths, devices, filters. Read back from the kernel."""

import os
from pathlib import Path
from typing import Any

import pytest

from agent.container.container import Container
from agent.errors import Refused, StepFailed
from tests.root.container_helpers import DOCKER_CAPABILITIES, Box, execute, finish

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]
DOCKER_MASK = 0xA80425FB


def status_of(text: str) -> dict[str, str]:
    """/proc/PID/status."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_capabilities_are_exactly_the_specs(box: Box) -> None:
    status = status_of(box.sh("cat /proc/self/status").stdout)
    assert [int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0, *[DOCKER_MASK] * 3, 0]
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "0"


def test_no_capabilities_object_means_none(box: Box) -> None:
    doc = box.document("cat", "/proc/self/status")
    del doc["process"]["capabilities"]
    status = status_of(box.run(doc).stdout)
    assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}


def test_ambient_capabilities_reach_another_user(box: Box) -> None:
    doc = box.document("cat", "/proc/self/status")
    doc["process"]["user"] = {"uid": 1000, "gid": 1000}
    names = ["CAP_NET_BIND_SERVICE"]
    doc["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective", "inheritable", "ambient"), names)
    status = status_of(box.run(doc).stdout)
    assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {1 << 10}


def test_inheritable_outside_the_bounding_set(box: Box) -> None:
    doc = box.document("cat", "/proc/self/status")
    doc["process"]["capabilities"] = {"bounding": [], "permitted": [], "effective": [], "inheritable": ["CAP_KILL"]}
    status = status_of(box.run(doc).stdout)
    assert (int(status["CapInh"], 16), int(status["CapBnd"], 16)) == (1 << 5, 0)


def test_a_user_other_than_root_has_no_capabilities(box: Box) -> None:
    doc = box.document("cat", "/proc/self/status")
    doc["process"]["user"] = {"uid": 1000, "gid": 1000}
    doc["process"]["capabilities"]["permitted"] = doc["process"]["capabilities"]["effective"] = []
    status = status_of(box.run(doc).stdout)
    assert (int(status["CapPrm"], 16), int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0, DOCKER_MASK)


def test_signals_have_their_defaults(box: Box) -> None:
    status = status_of(box.run(box.document("cat", "/proc/self/status")).stdout)
    assert {int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd")} == {0}


@pytest.mark.parametrize("terminal", [False, True])
def test_only_the_standard_descriptors_are_open(box: Box, terminal: bool) -> None:
    doc = box.document("sh", "-c", "exec ls /proc/self/fd")
    doc["process"]["terminal"] = terminal
    assert box.run(doc).stdout.split() == ["0", "1", "2", "3"]  # 3 is the directory being read


def test_only_the_standard_descriptors_are_open_in_exec(box: Box) -> None:
    async def use(container: Container) -> Any:
        return await execute(container, "ls", "/proc/self/fd")

    assert box.during(box.document("sleep", "9"), use).stdout.split() == ["0", "1", "2", "3"]


def test_exec_is_contained_like_the_first_process(box: Box) -> None:
    async def use(container: Container) -> Any:
        return await execute(container, "cat", "/proc/self/status")

    status = status_of(box.during(box.document("sleep", "9"), use).stdout)
    assert [int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0, *[DOCKER_MASK] * 3, 0]
    assert status["NoNewPrivs"] == "1"
    assert {int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigCgt")} == {0}


def test_exec_gets_what_its_caller_asks_for_and_nothing_else(box: Box) -> None:
    """Also beyond the container's (`docker exec --privileged`): each set as it is listed, and none where none is."""
    names = ["CAP_SYS_ADMIN", "CAP_CHOWN"]
    mask = 1 << 21 | 1
    listed = dict.fromkeys(("bounding", "permitted", "effective"), names)
    no_new_privs = {"noNewPrivileges": False}

    async def use(container: Container) -> list[dict[str, str]]:
        asked: list[dict[str, Any]] = [
            {"capabilities": listed},
            {"capabilities": {**listed, "inheritable": names, "ambient": names}, "user": {"uid": 1000, "gid": 1000}, **no_new_privs},
            {"capabilities": {}},
            {"user": {"uid": 1000, "gid": 1000}},
        ]
        return [
            status_of((await execute(container, "cat", "/proc/self/status", exec_id=f"e{n}", **one)).stdout) for n, one in enumerate(asked)
        ]

    seen = box.during(box.document("sleep", "9"), use)
    masks = [[int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] for status in seen]
    assert masks == [[0, mask, mask, mask, 0], [mask] * 5, [0] * 5, [0, 0, 0, DOCKER_MASK, 0]]
    assert [status["NoNewPrivs"] for status in seen] == ["1", "0", "1", "1"]


@pytest.mark.parametrize("fields", [{"allow": False, "access": "rwm"}, {"allow": False, "type": "c", "access": "m"}])
def test_nodes_are_made_before_the_device_rules_bind(box: Box, fields: dict[str, Any]) -> None:
    """Which need not permit mknod(2) then; afterwards they hold, for nodes of the container's own making as well."""
    doc = box.document("sh", "-c", "stat -c '%t %T %a' /dev/some /dev/null; mknod /dev/other c 1 11; cat </dev/some; echo $?")
    for kind in ("bounding", "effective", "permitted"):
        doc["process"]["capabilities"][kind] = [name for name in DOCKER_CAPABILITIES if name != "CAP_MKNOD"]
    doc["linux"]["devices"] = [{"path": "/dev/some", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 0, "gid": 0}]
    doc["linux"]["resources"] = {"devices": [fields]}
    done = box.run(doc)
    assert done.stdout.splitlines() == ["1 b 640", "1 3 666", "1"]
    assert done.stderr.count("Operation not permitted") == 2


def test_masked_paths(box: Box) -> None:
    doc = box.document("sh", "-c", "cat /secret; ls -A /hidden; echo x > /secret; echo x > /hidden/y")
    doc["mounts"].append({"destination": "/hidden", "type": "tmpfs", "source": "t"})
    doc["mounts"].append({"destination": "/secret", "type": "bind", "source": "/etc/hostname"})
    doc["linux"]["maskedPaths"] += ["/hidden", "/secret", "/not/there", "/hidden"]
    result = box.run(doc)
    assert result.stdout == ""
    assert "/hidden/y: Read-only file system" in result.stderr


def test_masks_of_the_default_list_are_empty(box: Box) -> None:
    script = "for p in " + " ".join(["/proc/acpi", "/proc/scsi", "/sys/firmware"]) + "; do ls -A $p; done; cat /proc/keys /proc/timer_list"
    assert box.sh(script).stdout == ""


def test_read_only_paths(box: Box) -> None:
    result = box.sh("echo x > /proc/sys/kernel/domainname; echo b > /proc/sysrq-trigger; echo 1 > /proc/irq/default_smp_affinity")
    assert result.stderr.count("Read-only file system") >= 2
    assert "can't create /proc/sys/kernel/domainname" in result.stderr


def test_read_only_root_with_its_masks(box: Box) -> None:
    doc = box.document("sh", "-c", "touch /x; touch /tmp/x; echo ok > /dev/shm/y; cat /dev/shm/y")
    doc["root"]["readonly"] = True
    result = box.run(doc)
    assert result.stderr.count("Read-only file system") == 2
    assert result.stdout == "ok\n"


def test_mounting_is_refused_inside(box: Box) -> None:
    attempts = ["mount -t tmpfs t /tmp", "umount /proc", "umount /proc/keys", "mount -o remount,rw /proc/sys", "unshare -m true"]
    result = box.sh("; ".join(attempts))
    assert result.stderr.count("ermission denied") + result.stderr.count("Operation not permitted") >= 5


def test_devices(box: Box) -> None:
    nodes = "for n in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' $n; done"
    listed = box.sh(f"cd /dev; {nodes}; for n in fd stdin ptmx; do readlink $n; done").stdout
    assert listed.splitlines() == [
        "null 1:3 666 character special file",
        "zero 1:5 666 character special file",
        "full 1:7 666 character special file",
        "random 1:8 666 character special file",
        "urandom 1:9 666 character special file",
        "tty 5:0 666 character special file",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "pts/ptmx",
    ]


def test_a_device_of_the_spec(box: Box) -> None:
    doc = box.document("sh", "-c", "stat -c '%t:%T %a %u:%g' /dev/deep/control; stat -c '%F' /dev/pipe; : < /dev/deep/control")
    doc["linux"]["devices"] = [
        {"path": "/dev/deep/control", "type": "c", "major": 10, "minor": 237, "fileMode": 0o640, "uid": 0, "gid": 4},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
    ]
    result = box.run(doc)
    assert result.stdout.splitlines() == ["a:ed 640 0:4", "fifo"]
    assert "Operation not permitted" in result.stderr  # the node is there, access is the device program's to give
    doc["linux"]["resources"] = {"devices": [{"allow": True, "type": "c", "major": 10, "minor": 237, "access": "r"}]}
    assert "Operation not permitted" not in box.run(doc).stderr


def test_device_program_denies_what_no_rule_names(box: Box) -> None:
    result = box.sh("mknod /tmp/kmsg c 1 11 && echo made; cat /tmp/kmsg; rm -f /tmp/kmsg; echo x > /dev/null && echo fine")
    assert "made" in result.stdout
    assert "Operation not permitted" in result.stderr
    assert "fine" in result.stdout


def test_no_mknod_at_all_without_its_capability(box: Box) -> None:
    doc = box.document("sh", "-c", "mknod /tmp/zero c 1 5 && cat /tmp/zero")
    for names in doc["process"]["capabilities"].values():
        if "CAP_MKNOD" in names:
            names.remove("CAP_MKNOD")
    result = box.run(doc)
    assert result.status != 0
    assert "not permitted" in result.stderr


PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
}


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_seccomp_filter(box: Box, no_new_privs: bool) -> None:
    doc = box.document("sh", "-c", "grep Seccomp: /proc/self/status; grep CapEff /proc/self/status; mkdir /tmp/x")
    doc["process"]["noNewPrivileges"] = no_new_privs
    doc["linux"]["seccomp"] = PROFILE
    result = box.run(doc)
    assert result.stdout.split() == ["Seccomp:", "2", "CapEff:", f"{DOCKER_MASK:016x}"]
    assert "No space left on device" in result.stderr


def test_seccomp_filter_with_arguments(box: Box) -> None:
    doc = box.document("sh", "-c", "kill -0 $$ && echo zero; kill -CONT $$ && echo cont")
    rule = {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 18, "op": "SCMP_CMP_EQ"}]}
    doc["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    assert box.run(doc).stdout == "zero\n"


def test_seccomp_filter_binds_exec_too(box: Box) -> None:
    doc = box.document("sleep", "9")
    doc["linux"]["seccomp"] = PROFILE

    async def use(container: Container) -> Any:
        return await execute(container, "sh", "-c", "grep Seccomp: /proc/self/status; mkdir /tmp/x")

    result = box.during(doc, use)
    assert result.stdout.split() == ["Seccomp:", "2"]
    assert "No space left on device" in result.stderr


def test_seccomp_that_forbids_exec_is_reported(box: Box) -> None:
    doc = box.document("true")
    doc["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}]}
    with pytest.raises(StepFailed, match="execute program"):
        box.run(doc)


def test_rlimits(box: Box) -> None:
    doc = box.document("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c")
    doc["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    assert box.run(doc).stdout.split() == ["100", "200", "0"]


def test_a_tiny_address_space_does_not_break_the_set_up(box: Box) -> None:
    doc = box.document("true")
    doc["process"]["rlimits"] = [{"type": "RLIMIT_AS", "soft": 8 << 20, "hard": 8 << 20}]
    assert box.run(doc).status == 0


def test_sysctls(box: Box) -> None:
    doc = box.document("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax")
    doc["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.msgmax": "4096"}
    assert box.run(doc).stdout.split() == ["80", "4096"]
    assert Path("/proc/sys/kernel/msgmax").read_text().strip() != "4096"


def test_oom_score_adj_scheduler_and_priority(box: Box) -> None:
    doc = box.document("sh", "-c", "cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; uname -m")
    doc["process"]["oomScoreAdj"] = 321
    doc["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    doc["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    doc["linux"]["personality"] = {"domain": "LINUX32"}
    assert box.run(doc).stdout.split() == ["321", "7", "3", "i686"]


def test_exec_has_what_it_leaves_open_from_the_first_process(box: Box) -> None:
    doc = box.document("sleep", "9")
    doc["process"]["oomScoreAdj"] = 321
    doc["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    doc["process"]["execCPUAffinity"] = {"final": "0"}
    doc["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    doc["linux"]["personality"] = {"domain": "LINUX32"}
    script = (
        "cat /proc/self/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; ulimit -n; uname -m; grep Cpus_allowed_list /proc/self/status"
    )

    async def use(container: Container) -> Any:
        return await execute(container, "sh", "-c", script)

    assert box.during(doc, use).stdout.split() == ["321", "7", "3", "100", "i686", "Cpus_allowed_list:", "0"]


def test_namespaces_are_its_own(box: Box) -> None:
    inside = box.sh("for n in pid mnt ipc uts net cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup").stdout.split()
    own = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt", "ipc", "uts", "net", "cgroup")]
    assert not set(inside) & set(own)
    assert "0::/" in inside


def test_namespaces_that_the_spec_does_not_list_are_the_agents(box: Box) -> None:
    doc = box.document("sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/uts")
    del doc["hostname"]
    doc["linux"]["namespaces"] = [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]
    assert box.run(doc).stdout.split() == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/uts")]


def test_joining_another_containers_namespaces(box: Box) -> None:
    async def use(container: Container) -> Any:
        doc = box.document("sh", "-c", "hostname; readlink /proc/self/ns/net; ps -o args | grep -cx 'sleep 9'; echo $$")
        pid = container.init.pid
        joined = {"network": "net", "uts": "uts", "ipc": "ipc", "pid": "pid"}
        doc["linux"]["namespaces"] = [
            *[{"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in joined.items()],
            {"type": "mount"},
            {"type": "cgroup"},
        ]
        doc["hostname"] = ""
        second = Box(box.root, box.host, "box2")
        other = await second.create(doc)
        await other.start()
        result = await finish(other.init)
        await other.remove()
        return result, os.readlink(f"/proc/{pid}/ns/net")

    result, net = box.during(box.document("sleep", "9"), use)
    name, inside, count, own_pid = result.stdout.split()
    assert (name, inside, count) == ("box", net, "1")
    assert int(own_pid) > 1


def test_a_namespace_of_another_kind_is_refused(box: Box) -> None:
    doc = box.document("true")
    doc["linux"]["namespaces"][4] = {"type": "network", "path": "/proc/self/ns/uts"}
    with pytest.raises(Refused, match="is not a net namespace"):
        box.run(doc)
    doc["linux"]["namespaces"][4] = {"type": "network", "path": "/etc/hostname"}
    with pytest.raises(Refused, match="is not a net namespace"):
        box.run(doc)
