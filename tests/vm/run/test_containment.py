"""What holds a default container, seen from inside it."""

import json
from typing import Any

import pytest

from tests.images import busybox_image, debian_image
from tests.vm.command import innkeeper, succeed

pytestmark = pytest.mark.vm

# docker's default set: CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID
# SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE
DOCKERS_DEFAULT = 0x00000000A80425FB

DEVICES = {"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}

PROBE = r"""
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)

def refused(function, *arguments):
    ctypes.set_errno(0)
    return 0 if function(*arguments) == 0 else errno.errorcode[ctypes.get_errno()]

def reading(path):
    try:
        with open(path, "rb") as file:
            return len(file.read(1))
    except OSError as error:
        return errno.errorcode[error.errno]

def writing(path):
    try:
        with open(path, "w") as file:
            file.write("0")
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]

status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "status": {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")},
    "pid": os.getpid(),
    "mount": refused(libc.mount, b"none", b"/mnt", b"tmpfs", 0, None),
    "umount": refused(libc.umount2, b"/proc", 0),
    "reboot": refused(libc.reboot, 0x4321FEDC),
    "unshare user": refused(libc.unshare, 0x10000000),
    "keyctl": refused(libc.syscall, 250, 0, 0, 0, 0, 0),
    "bpf": refused(libc.syscall, 321, 0, 0, 0),
    "kcore": reading("/proc/kcore"),
    "timer_list": reading("/proc/timer_list"),
    "firmware": os.listdir("/sys/firmware") if os.path.exists("/sys/firmware") else [],
    "sysctl": writing("/proc/sys/kernel/panic"),
    "sysrq": writing("/proc/sysrq-trigger"),
    "sysfs": writing("/sys/kernel/mm/ksm/run") if os.path.exists("/sys/kernel/mm/ksm/run") else writing("/sys/kernel/rcu_expedited"),
    "cgroup": writing("/sys/fs/cgroup/cgroup.procs"),
    "devices": sorted(os.listdir("/dev")),
    "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
    "vda": refused(libc.mknod, b"/tmp/vda", 0o60600, os.makedev(254, 0)) == 0 and reading("/tmp/vda"),
}))
"""


def test_a_default_container_is_held() -> None:
    told: dict[str, Any] = json.loads(succeed("run", "--rm", debian_image(), "python3", "-c", PROBE))
    status = told["status"]
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) & ~DOCKERS_DEFAULT == 0, name
    assert int(status["CapAmb"], 16) == 0
    assert status["Seccomp"].strip() == "2"
    assert (told["mount"], told["umount"], told["reboot"]) == ("EPERM", "EPERM", "EPERM")
    assert (told["unshare user"], told["keyctl"], told["bpf"]) == ("EPERM", "EPERM", "EPERM")
    assert told["kcore"] == 0 or told["kcore"] in ("EACCES", "ENOENT")
    assert told["timer_list"] == 0 or told["timer_list"] in ("EACCES", "ENOENT")
    assert told["firmware"] == []
    assert told["sysctl"] == "EROFS"
    assert told["sysrq"] in ("EROFS", "ENOENT")  # this kernel has no sysrq at all
    assert told["sysfs"] == "EROFS"
    assert told["cgroup"] == "EROFS"
    assert set(told["devices"]) <= DEVICES
    assert (told["pid"], told["processes"]) == (1, ["1"])
    assert told["vda"] == "EPERM"  # the node may be made (MKNOD is in the default set), the device program denies its use


@pytest.mark.parametrize(("option", "value"), [("no-new-privileges", "1"), ("no-new-privileges=false", "0")])
def test_no_new_privileges_as_asked(option: str, value: str) -> None:
    told = succeed("run", "--rm", "--security-opt", option, busybox_image(), "grep", "NoNewPrivs", "/proc/self/status")
    assert told.split() == ["NoNewPrivs:", value]


def test_privileges_can_be_given_and_taken() -> None:
    flags = ["--cap-drop", "ALL", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    script = "mount -t tmpfs none /tmp && echo mounted; grep -E '^(CapEff|Seccomp):' /proc/self/status"
    told = succeed("run", "--rm", *flags, busybox_image(), "sh", "-c", script).split()
    assert told == ["mounted", "CapEff:", f"{1 << 21:016x}", "Seccomp:", "0"]


def test_what_is_not_supported_is_refused_by_name() -> None:
    done = innkeeper("run", "--rm", "--security-opt", "apparmor=some-profile", busybox_image(), "true")
    assert done.returncode == 125
    assert b"process.apparmorProfile" in done.stderr
    done = innkeeper("run", "--rm", "--sysctl", "kernel.panic=1", busybox_image(), "true")
    assert done.returncode == 125
    assert b"kernel.panic" in done.stderr
