"""The printed plan of a spec: everything that would be done is a line, and nothing is done."""

from pathlib import Path
from typing import Any

import pytest

from agent.container import create
from agent.container.explain import plan_lines
from agent.container.host_context import HostContext
from agent.container.init import child
from agent.container.spec.document import parse_spec

pytestmark = pytest.mark.needs("module:pyseccomp")
HOST = HostContext(Path("/no/such/cgroup"), Path("/no/such/state"), namespaces={"ipc": "/run/sandbox-ns/ipc"})
MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]
TRANSLATED = {"uidMappings": MAP, "gidMappings": MAP}
FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "/no/such/root", "readonly": True},
    "hostname": "inn",
    "process": {
        "args": ["server", "-v"],
        "cwd": "/srv",
        "env": [],
        "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}],
        "noNewPrivileges": True,
        "oomScoreAdj": 5,
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {
            "destination": "/data",
            "type": "bind",
            "source": "/no/such/source",
            "options": ["rbind", "rro"],
            "uidMappings": MAP,
            "gidMappings": MAP,
        },
        {"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "size=1m"]},
        {"destination": "/tmp", "type": "none", "source": "none", "options": ["remount", "ro"]},
    ],
    "hooks": {"poststop": [{"path": "/bin/after", "timeout": 3}]},
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "uts", "ipc", "pid", "network", "user")],
        "uidMappings": MAP,
        "gidMappings": MAP,
        "netDevices": {"eth7": {"name": "up0"}},
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "devices": [{"path": "/dev/own", "type": "c", "major": 10, "minor": 200}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "cgroupsPath": "/pod/one",
        "resources": {"pids": {"limit": 9}, "devices": [{"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}]},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]},
    },
}
EXPECTED = """
  mount: new
  ipc: join /run/sandbox-ns/ipc
  map users 0 to 100000 (65536)
  move network interface eth7 into the container as up0 (linux.netDevices.eth7)
cgroup /no/such/cgroup/pod/one
  write '9' to pids.max (linux.resources.pids.limit)
  allow device c 10:200 rw
  mount proc on /proc (nosuid)
  bind /no/such/source and all below on /data (rro) with translated owners
  mount tmpfs on /tmp (size=1m), filled from what is there
  change the mount on /tmp (ro)
  make /dev/own (c 10:200, mode 666)
  make /proc/sys read-only
  hide /proc/kcore
  make the mount / read-only
  hostname inn
  sysctl net.ipv4.ip_forward = 1
  run server -v in /srv
  as user 7, group 8, groups 9, umask 0022
  bounding capabilities: CAP_KILL
  limit 7 to 5, at most 6
  oom_score_adj 5
  no_new_privs set
  poststop: /bin/after within 3 s
"""


def test_every_part_is_a_line() -> None:
    lines = list(plan_lines(parse_spec(FULL), HOST))
    assert [line for line in EXPECTED.strip("\n").splitlines() if line not in lines] == []
    for name, _, why in (*create.STEPS, *child.INIT_STEPS):
        assert f"  {name}: {why}" in lines
    assert any(line.startswith("  seccomp filter of ") for line in lines)


def test_a_container_without_a_process() -> None:
    lines = list(plan_lines(parse_spec({key: value for key, value in FULL.items() if key != "process"}), HOST))
    assert "  none: it cannot be started" in lines
