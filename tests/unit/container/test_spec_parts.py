"""What the parser makes of mounts, processes and namespaces."""

from typing import Any

import pytest

from agent.container.spec.mounts import mapping_lines
from agent.container.spec.process import home_of
from agent.container.spec.scheduling import cpu_list
from agent.container.spec.seccomp import ACTIONS
from agent.linux import mount as m
from tests.unit.container.documents import parsed

MOUNT: dict[str, Any] = {"destination": "/d", "type": "tmpfs", "source": "t"}


def attributes(*words: str) -> tuple[int, int]:
    mount = parsed("mounts[0]", {**MOUNT, "options": list(words)}).mounts[0]
    return mount.set, mount.clear


@pytest.mark.parametrize(
    ("words", "set_", "clear"),
    [
        ((), 0, 0),
        (("defaults", "async"), 0, 0),
        (("ro",), m.MOUNT_ATTR_RDONLY, 0),
        (("ro", "rw"), 0, m.MOUNT_ATTR_RDONLY),
        (("rw", "ro"), m.MOUNT_ATTR_RDONLY, 0),
        (("nosuid", "nodev", "noexec"), 2 | 4 | 8, 0),
        (("noexec", "exec", "dev"), 0, 8 | 4),
        (("noatime",), m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
        (("noatime", "relatime"), 0, m.MOUNT_ATTR__ATIME),
        (("relatime", "strictatime"), m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
        (("noatime", "nodiratime"), m.MOUNT_ATTR_NOATIME | m.MOUNT_ATTR_NODIRATIME, m.MOUNT_ATTR__ATIME),
        (("nodiratime", "diratime"), 0, m.MOUNT_ATTR_NODIRATIME),
        (("nosymfollow",), m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    ],
)
def test_attributes(words: tuple[str, ...], set_: int, clear: int) -> None:
    assert attributes(*words) == (set_, clear)


def test_recursive_attributes_are_apart() -> None:
    mount = parsed("mounts[0]", {**MOUNT, "type": "bind", "source": "/s", "options": ["rbind", "rro", "rnosuid", "rnoatime", "ro"]}).mounts[
        0
    ]
    assert mount.recursive_set == m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NOATIME
    assert mount.recursive_clear == m.MOUNT_ATTR__ATIME
    assert (mount.set, mount.clear, mount.bind, mount.recursive) == (m.MOUNT_ATTR_RDONLY, 0, True, True)


def test_propagation_last_of_each_kind() -> None:
    mount = parsed("mounts[0]", {**MOUNT, "options": ["private", "shared", "rprivate", "rslave"]}).mounts[0]
    assert (mount.propagation, mount.recursive_propagation) == (m.MS_SHARED, m.MS_SLAVE)


def test_everything_else_is_the_filesystems() -> None:
    mount = parsed("mounts[0]", {**MOUNT, "options": ["size=64k", "mode=755", "lazytime", "noswap", "gid="]}).mounts[0]
    assert mount.data == (("lazytime", None), ("size", "64k"), ("mode", "755"), ("noswap", None), ("gid", ""))


@pytest.mark.parametrize("kind", ["bind", "rbind"])
def test_a_bind_by_its_type(kind: str) -> None:
    mount = parsed("mounts[0]", {"destination": "/d", "type": kind, "source": "/s"}).mounts[0]
    assert mount.bind
    assert mount.recursive is (kind == "rbind")


def test_files_over_those_of_proc() -> None:
    spec = parsed("mounts[0]", {"destination": "/proc/cpuinfo", "type": "bind", "source": "/s"})
    assert spec.mounts[0].destination == "/proc/cpuinfo"


def test_mapping_lines() -> None:
    assert mapping_lines(((0, 100000, 65536), (65536, 5, 1))) == b"0 100000 65536\n65536 5 1\n"


def test_namespaces_by_the_kernels_names() -> None:
    listed = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "cgroup", "time")] + [{"type": "network", "path": "/run/netns/a"}]
    namespaces = parsed("linux.namespaces", listed).linux.namespaces
    assert namespaces == {"mnt": None, "pid": None, "uts": None, "ipc": None, "cgroup": None, "time": None, "net": "/run/netns/a"}


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [("", ""), ("/a/b", "a/b"), ("a//./b/", "a/b"), ("system.slice:kata:web", "system.slice/kata/web"), ("/kubepods/x", "kubepods/x")],
)
def test_cgroups_path(path: str, cleaned: str) -> None:
    assert parsed("linux.cgroupsPath", path).linux.cgroups_path == cleaned


def test_time_offsets() -> None:
    from agent.container.spec.document import parse_spec
    from tests.unit.container.documents import changed

    document = changed("linux.timeOffsets", {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 60}})
    document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "time"}]
    assert parse_spec(document).linux.time_offsets == (("monotonic", -5, 7), ("boottime", 60, 0))


def test_masked_paths_once() -> None:
    assert parsed("linux.maskedPaths", ["/proc/kcore", "/proc/keys", "/proc/kcore"]).linux.masked_paths == ("/proc/kcore", "/proc/keys")


def test_rlimits_and_priorities() -> None:
    process = parsed("process.rlimits", [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}]).process
    assert process is not None
    assert process.rlimits == ((7, 1, 2**64 - 1),)
    process = parsed("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 4}).process
    assert process is not None
    assert process.io_priority == 2 << 13 | 4


@pytest.mark.parametrize(("text", "cpus"), [("", ()), ("3", (3,)), ("0-2,7", (0, 1, 2, 7)), (" 1 , 3-3", (1, 3))])
def test_cpu_list(text: str, cpus: tuple[int, ...]) -> None:
    assert cpu_list(text, "x") == cpus


def test_home_is_found_by_number_only() -> None:
    passwd = b"root:x:0:0:root:/root:/bin/sh\n0:x:7:7::/wrong:/bin/sh\nbroken\napp:x:1000:1000::/home/app:/bin/sh\nno:x:5:5:::\n"
    assert [home_of(passwd, uid) for uid in (0, 7, 1000, 5, 6)] == [b"/root", b"/wrong", b"/home/app", b"/", b"/"]


def test_seccomp_actions_and_their_values() -> None:
    rule = {"names": ["a", "b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    profile = {"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 9, "syscalls": [rule, {"names": ["c"], "action": "SCMP_ACT_ERRNO"}]}
    seccomp = parsed("linux.seccomp", profile).linux.seccomp
    assert seccomp is not None
    assert seccomp.default == ACTIONS["SCMP_ACT_TRACE"] | 9
    assert [rule.action for rule in seccomp.rules] == [ACTIONS["SCMP_ACT_ERRNO"] | 38, ACTIONS["SCMP_ACT_ERRNO"] | 1]


def test_seccomp_flags_default_to_spec_allow_and_an_empty_list_to_none() -> None:
    for flags, value in ((None, 4), ([], 0), (["SECCOMP_FILTER_FLAG_LOG"], 2)):
        profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}
        seccomp = parsed("linux.seccomp", profile).linux.seccomp
        assert seccomp is not None
        assert seccomp.flags == value
