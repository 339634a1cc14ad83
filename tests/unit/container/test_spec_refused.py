"""Every field that is wrong, unknown in value, or not applied is refused by its path; nothing of the document is dropped silently."""

from typing import Any

import pytest

from agent.container.spec.document import check_id, parse_process, parse_spec
from agent.errors import Refused
from tests.unit.container.documents import SMALL, changed

IPC = [{"type": "mount"}, {"type": "ipc"}]
NET = [{"type": "mount"}, {"type": "network"}]
MOUNT = {"destination": "/d", "type": "tmpfs", "source": "t"}
BIND = {"destination": "/d", "type": "bind", "source": "/s"}
NOTIFYING = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "listenerPath": "/s",
    "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
}

# (path of the change, its value, path in the refusal: None for the same)
NOT_APPLIED: list[tuple[str, Any, str | None]] = [
    ("process.apparmorProfile", "no-such-profile", None),
    ("process.selinuxLabel", "no such context", None),
    ("process.user.username", "root", None),
    ("process.commandLine", "cmd /c", None),
    ("linux.intelRdt", {"closID": "x"}, None),
    ("linux.mountLabel", "no such context", None),
    ("linux.personality", {"domain": "LINUX", "flags": ["X"]}, "linux.personality.flags"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"}, "linux.seccomp.listenerMetadata"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction"),
    ("linux.resources.cpu", {"realtimeRuntime": 1000}, "linux.resources.cpu.realtimeRuntime"),
    ("linux.resources.cpu", {"realtimePeriod": 1000}, "linux.resources.cpu.realtimePeriod"),
    ("linux.resources.memory", {"swappiness": 60}, "linux.resources.memory.swappiness"),
    ("linux.resources.memory", {"disableOOMKiller": True}, "linux.resources.memory.disableOOMKiller"),
    ("linux.resources.memory", {"useHierarchy": False}, "linux.resources.memory.useHierarchy"),
    ("linux.resources.network", {"classID": 1}, "linux.resources.network.classID"),
    ("linux.resources.network", {"priorities": [{"name": "eth0", "priority": 1}]}, "linux.resources.network.priorities"),
    ("linux.resources.blockIO", {"leafWeight": 10}, "linux.resources.blockIO.leafWeight"),
    (
        "linux.resources.blockIO",
        {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]},
        "linux.resources.blockIO.weightDevice[0].leafWeight",
    ),
    ("windows", {"layerFolders": ["x"]}, None),
    ("solaris", {"milestone": "x"}, None),
    ("vm", {"hypervisor": {"path": "/x"}}, None),
    ("zos", {"namespaces": [{"type": "mount"}]}, None),
    ("freebsd", {"jail": {"parent": "x"}}, None),
]

WRONG: list[tuple[str, Any, str | None]] = [
    ("ociVersion", "2.0.0", None),
    ("ociVersion", "new", None),
    ("ociVersion", 1, None),
    ("root", None, None),
    ("root.path", "relative", None),
    ("root.path", "", None),
    ("root.path", "/a\0b", None),
    ("root.path", 7, None),
    ("root.readonly", "yes", None),
    ("root", [], None),
    ("hostname", "box", None),  # without a uts namespace
    ("domainname", "box", None),
    ("hostname", "x" * 65, None),
    ("annotations", {"a": 1}, "annotations.a"),
    ("process", [], None),
    ("process.args", [], None),
    ("process.args", [""], "process.args[0]"),
    ("process.args", ["a", 1], "process.args[1]"),
    ("process.args", ["a\0"], "process.args[0]"),
    ("process.args", ["\ud800"], "process.args[0]"),
    ("process.args", "true", None),
    ("process.cwd", "relative", None),
    ("process.env", ["A"], "process.env[0]"),
    ("process.env", ["=x"], "process.env[0]"),
    ("process.terminal", 1, None),
    ("process.consoleSize", {"height": 65536, "width": 1}, "process.consoleSize.height"),
    ("process.user.uid", -1, None),
    ("process.user.uid", 2**32 - 1, None),
    ("process.user.uid", "0", None),
    ("process.user.uid", 1.0, None),
    ("process.user.uid", True, None),
    ("process.user.gid", 2**32, None),
    ("process.user.additionalGids", [1, -1], "process.user.additionalGids[1]"),
    ("process.user.umask", 0o1000, None),
    ("process.capabilities", {"effective": ["CAP_KILL"], "permitted": []}, "process.capabilities.effective"),
    ("process.capabilities", {"bounding": "CAP_KILL"}, "process.capabilities.bounding"),
    ("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "process.rlimits[0].type"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0].soft"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2, "process.rlimits[1].type"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": -1, "hard": 1}], "process.rlimits[0].soft"),
    ("process.oomScoreAdj", 1001, None),
    ("process.noNewPrivileges", "true", None),
    ("process.scheduler", {"policy": "SCHED_ISO"}, "process.scheduler.policy"),
    ("process.scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.priority"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "priority": 1}, "process.scheduler.priority"),
    ("process.scheduler", {"policy": "SCHED_FIFO", "priority": 1, "nice": 1}, "process.scheduler.nice"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "runtime": 1}, "process.scheduler.runtime"),
    ("process.scheduler", {"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 4000}, "process.scheduler.runtime"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}, "process.scheduler.flags[0]"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_X"}, "process.ioPriority.class"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "process.ioPriority.priority"),
    ("process.execCPUAffinity", {"initial": "3-1"}, "process.execCPUAffinity.initial"),
    ("process.execCPUAffinity", {"final": "x"}, "process.execCPUAffinity.final"),
    ("linux.namespaces", [{"type": "pid"}], None),
    ("linux.namespaces", [{"type": "mount", "path": "x"}], "linux.namespaces[0].path"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "linux.namespaces[1].type"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "net"}], "linux.namespaces[1].type"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "ipc", "path": "x"}], "linux.namespaces[1].path"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "user"}], "linux.uidMappings"),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], None),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0}], "linux.uidMappings[0].size"),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}] * 341, None),
    ("linux.uidMappings", [{"containerID": 1, "hostID": 0, "size": 1}], None),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, None),
    ("linux.timeOffsets", {"realtime": {"secs": 1}}, "linux.timeOffsets.realtime"),
    ("linux.timeOffsets", {"monotonic": {"nanosecs": 10**9}}, "linux.timeOffsets.monotonic.nanosecs"),
    ("linux.devices", [{"type": "c"}], "linux.devices[0].path"),
    ("linux.devices", [{"path": "/dev/x", "type": "x"}], "linux.devices[0].type"),
    ("linux.devices", [{"path": "/dev/../x", "type": "c"}], "linux.devices[0].path"),
    ("linux.devices", [{"path": "dev/x", "type": "c"}], "linux.devices[0].path"),
    ("linux.devices", [{"path": "/dev/x", "type": "c", "major": -1}], "linux.devices[0].major"),
    ("linux.cgroupsPath", "/../x", None),
    ("linux.cgroupsPath", "a/../../b", None),
    ("linux.cgroupsPath", "/", None),
    ("linux.cgroupsPath", "a\0b", None),
    ("linux.cgroupsPath", "x" * 4097, None),
    ("linux.rootfsPropagation", "upwards", None),
    ("linux.maskedPaths", ["relative"], None),
    ("linux.readonlyPaths", ["relative"], None),
    ("linux.personality", {"domain": "BSD"}, "linux.personality.domain"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_MAYBE"}, "linux.seccomp.defaultAction"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "linux.seccomp.defaultErrnoRet"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["VAX"]}, "linux.seccomp.architectures[0]"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}, "linux.seccomp.flags[0]"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": []}]}, "linux.seccomp.syscalls[0].names"),
    (
        "linux.seccomp",
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}],
        },
        "linux.seccomp.syscalls[0].args[0].index",
    ),
    (
        "linux.seccomp",
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["x"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "EQ"}]}],
        },
        "linux.seccomp.syscalls[0].args[0].op",
    ),
    ("linux.seccomp", {**NOTIFYING, "listenerPath": "s"}, "linux.seccomp.listenerPath"),
    ("linux.seccomp", {**NOTIFYING, "listenerPath": None}, "linux.seccomp.listenerPath"),
    (
        "linux.seccomp",
        {**NOTIFYING, "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]},
        "linux.seccomp.syscalls[0].names",
    ),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]},
        "linux.seccomp.flags[0]",
    ),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 0}, "linux.seccomp.defaultErrnoRet"),
    ("linux.netDevices", {"eth0": {}}, None),  # without a network namespace
    ("linux.netDevices", {"a/b": {}}, "linux.netDevices.a/b"),
    ("linux.netDevices", {"\ud800": {}}, "linux.netDevices"),
    ("linux.netDevices", {"eth0": {"name": "x" * 16}}, "linux.netDevices.eth0.name"),
    ("linux.netDevices", {"eth0": {"name": ".."}}, "linux.netDevices.eth0.name"),
    ("linux.netDevices", {"eth0": {"name": "a b"}}, "linux.netDevices.eth0.name"),
    ("linux.netDevices", {"eth0": {"name": "n0"}, "eth1": {"name": "n0"}}, "linux.netDevices.eth0"),
    ("linux.netDevices", {"eth0": []}, "linux.netDevices.eth0"),
    ("linux.memoryPolicy", {"mode": "MPOL_X"}, "linux.memoryPolicy.mode"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "linux.memoryPolicy.nodes"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "x"}, "linux.memoryPolicy.nodes"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": ["F"]}, "linux.memoryPolicy.flags[0]"),
    ("hooks", [], None),
    ("hooks.prestart", {}, None),
    ("hooks.prestart", [{}], "hooks.prestart[0].path"),
    ("hooks.createRuntime", [{"path": "bin/x"}], "hooks.createRuntime[0].path"),
    ("hooks.createContainer", [{"path": "/x", "timeout": 0}], "hooks.createContainer[0].timeout"),
    ("hooks.startContainer", [{"path": "/x", "timeout": -1}], "hooks.startContainer[0].timeout"),
    ("hooks.poststart", [{"path": "/x", "env": ["A"]}], "hooks.poststart[0].env[0]"),
    ("hooks.poststop", [{"path": "/x", "args": ["x", "a\0"]}], "hooks.poststop[0].args[1]"),
    ("linux.resources.devices", [{"allow": True, "type": "x", "access": "r"}], "linux.resources.devices[0].type"),
    ("linux.resources.devices", [{"allow": True, "type": "c", "access": "rx"}], "linux.resources.devices[0].access"),
    ("linux.resources.devices", [{"allow": True, "type": "c"}], "linux.resources.devices[0].access"),
    ("linux.resources.memory", {"swap": 100}, "linux.resources.memory.swap"),
    ("linux.resources.memory", {"limit": 200, "swap": 100}, "linux.resources.memory.swap"),
    ("linux.resources.memory", {"limit": -2}, "linux.resources.memory.limit"),
    ("linux.resources.memory", {"limit": 1 << 64}, "linux.resources.memory.limit"),
    ("linux.resources.cpu", {"cpus": "a-b"}, "linux.resources.cpu.cpus"),
    ("linux.resources.cpu", {"idle": 2}, "linux.resources.cpu.idle"),
    ("linux.resources.pids", {"limit": -2}, "linux.resources.pids.limit"),
    ("linux.resources.blockIO", {"weight": 9}, "linux.resources.blockIO.weight"),
    ("linux.resources.hugepageLimits", [{"pageSize": "2M", "limit": 1}], "linux.resources.hugepageLimits[0].pageSize"),
    ("linux.resources.unified", {"../x": "1"}, "linux.resources.unified.../x"),
    ("linux.resources.unified", {"cgroup.procs": "1"}, "linux.resources.unified.cgroup.procs"),
    ("mounts[0]", {"type": "tmpfs"}, "mounts[0].destination"),
    ("mounts[0]", {**MOUNT, "destination": "/a/../b"}, "mounts[0].destination"),
    ("mounts[0]", {**MOUNT, "destination": "/"}, "mounts[0].destination"),
    ("mounts[0]", {**MOUNT, "destination": "/./"}, "mounts[0].destination"),
    ("mounts[0]", {"destination": "/d"}, "mounts[0].type"),
    ("mounts[0]", {**MOUNT, "type": "none"}, "mounts[0].type"),
    ("mounts[0]", {"destination": "/d", "type": "ramfs", "options": ["tmpcopyup"]}, "mounts[0].options"),
    ("mounts[0]", {**BIND, "options": ["tmpcopyup"]}, "mounts[0].options"),
    ("mounts[0]", {**BIND, "options": ["remount", "idmap"]}, "mounts[0].uidMappings"),
    ("mounts[0]", {**BIND, "source": "rel"}, "mounts[0].source"),
    ("mounts[0]", {**BIND, "options": ["size=1"]}, "mounts[0].options"),
    ("mounts[0]", {**BIND, "options": ["sync"]}, "mounts[0].options"),
    ("mounts[0]", {**MOUNT, "options": ["a,b"]}, "mounts[0].options[0]"),
    ("mounts[0]", {**MOUNT, "options": ["a\0"]}, "mounts[0].options[0]"),
    ("mounts[0]", {**MOUNT, "options": ["x" * 4096]}, "mounts[0].options"),
    ("mounts[0]", {**MOUNT, "destination": "/proc/self/attr"}, "mounts[0].destination"),
    ("mounts[0]", {**MOUNT, "destination": "/proc//sys"}, "mounts[0].destination"),
    ("mounts[0]", {**BIND, "destination": "/proc/self"}, "mounts[0].destination"),
    ("mounts[0]", {**MOUNT, "destination": "/proc"}, "mounts[0].type"),
    ("mounts[0]", {"destination": "/q", "type": "mqueue", "source": "q"}, "mounts[0].type"),
    ("mounts[0]", {**MOUNT, "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, "mounts[0].uidMappings"),
    ("mounts[0]", {**BIND, "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, "mounts[0].uidMappings"),
    ("mounts[0]", {**BIND, "options": ["idmap"]}, "mounts[0].options"),
]

SYSCTLS = [
    "kernel.core_pattern",
    "kernel.hostname",
    "vm.swappiness",
    "net",
    "net.",
    "net..x",
    "net/../kernel/core_pattern",
    "kernel.shm_rmid_forced/../../core_pattern",
    "net.ipv4/../../kernel/panic",
    "fs.mqueue",
    "user.max_user_namespaces",
    "",
]


def refusal(document: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_spec(document)
    return caught.value


@pytest.mark.parametrize(("path", "value", "refused"), NOT_APPLIED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_applied_is_refused(path: str, value: object, refused: str | None) -> None:
    assert refusal(changed(path, value)).field == (refused or path)


@pytest.mark.parametrize(("path", "value", "refused"), WRONG, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_what_is_wrong_is_refused(path: str, value: object, refused: str | None) -> None:
    assert refusal(changed(path, value)).field == (refused or path)


@pytest.mark.parametrize("name", SYSCTLS)
def test_a_sysctl_that_belongs_to_no_namespace_of_its_own(name: str) -> None:
    document = changed("linux.sysctl", {name: "1"})
    document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "ipc"}, {"type": "network"}, {"type": "uts"}]
    assert refusal(document).field == f"linux.sysctl.{name}"


def test_a_sysctl_needs_the_namespace() -> None:
    document = changed("linux.sysctl", {"net.ipv4.ip_forward": "1"})
    assert refusal(document).field == "linux.sysctl.net.ipv4.ip_forward"
    document["linux"]["namespaces"] = NET
    assert parse_spec(document).linux.sysctl == (("net/ipv4/ip_forward", "1"),)
    document["linux"]["namespaces"] = IPC
    assert parse_spec(document, sandbox=frozenset({"net"})).linux.sysctl == (("net/ipv4/ip_forward", "1"),)


def test_a_sysctl_written_with_slashes_keeps_its_dots() -> None:
    document = changed("linux.sysctl", {"net/ipv4/conf/eth0.100/forwarding": "1"})
    document["linux"]["namespaces"] = NET
    assert parse_spec(document).linux.sysctl == (("net/ipv4/conf/eth0.100/forwarding", "1"),)


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "../x", "a\0", "x" * 256, "é", "a b"])
def test_ids_that_could_leave_their_directory(value: str) -> None:
    with pytest.raises(Refused):
        check_id(value)


def test_an_id() -> None:
    assert check_id("web-1_a.B+c") == "web-1_a.B+c"


def test_unknown_keys_are_ignored_with_a_warning_that_lists_them() -> None:
    document = {**SMALL, "novel": 1, "linux": {**SMALL["linux"], "idea": {}, "resources": {"cpu": {"warp": 9}}}}
    fields = [warning.partition(":")[0] for warning in parse_spec(document).warnings]
    assert fields == ["linux.resources.cpu.warp", "linux.idea", "novel"]


def test_unknown_capabilities_are_not_granted_with_a_warning() -> None:
    spec = parse_spec(changed("process.capabilities", {"bounding": ["CAP_KILL", "CAP_FLY", "KILL"]}))
    assert spec.process is not None
    assert spec.process.capabilities is not None
    assert spec.process.capabilities.bounding == 1 << 5
    assert len(spec.warnings) == 2


def test_ambient_beyond_the_others_is_not_granted_with_a_warning() -> None:
    sets = {"ambient": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_KILL"]}
    spec = parse_spec(changed("process.capabilities", sets))
    assert spec.process is not None
    assert spec.process.capabilities is not None
    assert spec.process.capabilities.ambient == 1 << 5
    assert any("ambient" in warning for warning in spec.warnings)


def test_limits_that_the_kernel_has_given_up_are_warned_of() -> None:
    for key in ("kernel", "kernelTCP"):
        (warning,) = parse_spec(changed("linux.resources.memory", {key: 1000})).warnings
        assert warning.startswith(f"linux.resources.memory.{key}: deprecated")
        assert parse_spec(changed("linux.resources.memory", {key: 0})).warnings == ()


def test_null_is_absent() -> None:
    document = {**SMALL, "hostname": None, "mounts": None, "annotations": None}
    document["linux"] = {**SMALL["linux"], "seccomp": None, "resources": None}
    assert parse_spec(document).linux.seccomp is None


def test_a_process_of_exec_is_checked_the_same() -> None:
    with pytest.raises(Refused, match=r"process.args: missing"):
        parse_process({"args": []})
    process = parse_process({"args": ["a"], "env": ["A=1", "A=2"]})
    assert (process.cwd, process.env, process.user.umask) == ("/", ("A=2",), 0o22)


def test_warnings_of_parts_reach_the_spec() -> None:
    assert any("relative" in warning for warning in parse_spec(changed("mounts[0]", {**MOUNT, "destination": "d"})).warnings)
