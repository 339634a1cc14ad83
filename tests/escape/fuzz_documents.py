"""The valid specifications that fuzzing begins with: every field that the wire carries, and every field there is."""

from tests.escape.documents import Document, bind, document


def everything(root: str, file: str) -> Document:
    """A document in which every field of the wire has something."""
    doc = document(root, "hold")
    doc["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["reboot", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1 << 28, "valueTwo": 1 << 28, "op": "SCMP_CMP_MASKED_EQ"}],
            },
        ],
    }
    doc["annotations"] = {"org.example.key": "value"}
    doc["mounts"].append(dict(bind(file, "/volume/file", "ro", "rprivate")))
    doc["process"] |= {
        "terminal": False,
        "consoleSize": {"height": 24, "width": 80},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
        "oomScoreAdj": 100,
        "user": {"uid": 0, "gid": 0, "additionalGids": [5]},
    }
    doc["linux"] |= {
        "sysctl": {"net.ipv4.ip_forward": "0"},
        "cgroupsPath": "fuzz:ed:group",
        "rootfsPropagation": "rslave",
        "devices": [{"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0}],
        "resources": {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}]},
    }
    return doc


WHOLE = everything("/root-of-it", "/etc/hostname") | {"domainname": "example"}
WHOLE["hooks"] = {kind: [{"path": "/x", "args": ["x"], "env": ["A=B"], "timeout": 5}] for kind in ("createRuntime", "poststop")}
WHOLE["process"] |= {
    "scheduler": {"policy": "SCHED_OTHER", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
    "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    "execCPUAffinity": {"initial": "0", "final": "0-1"},
    "apparmorProfile": "",
    "selinuxLabel": "",
}
WHOLE["linux"] |= {
    "timeOffsets": {"boottime": {"secs": 5, "nanosecs": 7}},
    "intelRdt": {},
    "personality": {"domain": "LINUX"},
    "memoryPolicy": {"mode": "MPOL_DEFAULT"},
    "netDevices": {},
}
WHOLE["linux"]["namespaces"].append({"type": "time"})
WHOLE["linux"]["resources"] |= {
    "memory": {"limit": 1 << 30, "reservation": 1 << 20, "swap": 1 << 30, "checkBeforeUpdate": True},
    "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0", "idle": 0},
    "pids": {"limit": 100},
    "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
    "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
    "unified": {"memory.high": "max"},
}
