"""What the container core and programs in containers find in the guest's kernel."""

import json
from pathlib import Path

import pytest

from tests.images import busybox_image, debian_image
from tests.vm.pod import booted

pytestmark = pytest.mark.vm

PROBE = r"""
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)

def action(value):
    return libc.syscall(317, 2, 0, ctypes.byref(ctypes.c_uint32(value)))  # seccomp(SECCOMP_GET_ACTION_AVAIL)

print(json.dumps({
    "user notification": action(0x7FC00000),
    "no such action": action(0x7FB00000),
    "landlock": libc.syscall(444, None, ctypes.c_size_t(0), 1),
    "pressure": [line.split()[0] for line in open("/proc/pressure/memory")],
    "own pressure": [line.split()[0] for line in open("/sys/fs/cgroup/memory.pressure")],
    "namespaces": sorted(os.listdir("/proc/self/ns")),
    "controllers": open("/sys/fs/cgroup/cgroup.controllers").read().split(),
    "null": os.write(os.open("/dev/null", os.O_WRONLY), b"x"),
    "memory device": [os.mknod("/tmp/mem", 0o20600, os.makedev(1, 1)), os.path.exists("/tmp/mem")],
}))
try:
    os.open("/tmp/mem", os.O_RDONLY)
except PermissionError:
    print("held by the device program")
"""


def test_what_the_core_can_use_is_there(tmp_path: Path) -> None:
    with booted(debian_image(), tmp_path) as pod:
        # The default filter knows seccomp(2) and Landlock's calls; the label plays no part here.
        result = pod.run("python3", "-c", PROBE, apparmor="unconfined")
        features = json.loads(pod.agent.features())
    assert result.status == 0, result.stderr
    told, held = result.stdout.splitlines()
    assert held == "held by the device program"
    found = json.loads(told)
    assert (found["user notification"], found["no such action"]) == (0, -1)
    assert found["landlock"] == int(features["annotations"]["innkeeper.landlock.abi"]) >= 4
    assert found["pressure"] == found["own pressure"] == ["some", "full"]
    assert {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} <= set(found["namespaces"])
    assert {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"} <= set(found["controllers"])


@pytest.mark.parametrize(("parameters", "state"), [((), "Mitigation: "), (("mitigations=off",), "Vulnerable")])
def test_guards_against_speculation_are_not_only_compiled_in(parameters: tuple[str, ...], state: str, tmp_path: Path) -> None:
    with booted(busybox_image(), tmp_path, parameters=parameters) as pod:
        assert pod.run("cat", "/sys/devices/system/cpu/vulnerabilities/spectre_v2").stdout.startswith(state)
