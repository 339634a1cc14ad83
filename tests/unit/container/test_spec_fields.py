"""The table of the specification's fields is complete: by the specification's list, by what the parser asks for, by the tests there are."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from agent.container.spec import reader as reader_module
from agent.container.spec.document import parse_spec
from tests import spec_fields
from tests.spec_fields import fields

TESTS = Path(spec_fields.__file__).parent
MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]
HOOK = [{"path": "/bin/true"}]
NUMBERS = {"major": 8, "minor": 0}
# Every object of the specification is there, so that the parser asks for every field; what is refused it asks for all the same.
FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "root": {"path": "/root/fs"},
    "mounts": [
        {"destination": "/d", "type": "bind", "source": "/s", "uidMappings": MAP, "gidMappings": MAP},
    ],
    "process": {
        "args": ["true"],
        "cwd": "/",
        "consoleSize": {},
        "user": {},
        "capabilities": {},
        "rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}],
        "scheduler": {"policy": "SCHED_OTHER"},
        "ioPriority": {"class": "IOPRIO_CLASS_BE"},
        "execCPUAffinity": {},
    },
    "hooks": dict.fromkeys(("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), HOOK),
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "user", "time", "network")],
        "uidMappings": MAP,
        "gidMappings": MAP,
        "timeOffsets": {"monotonic": {}, "boottime": {}},
        "devices": [{"path": "/dev/x", "type": "c"}],
        "netDevices": {"eth0": {}},
        "memoryPolicy": {"mode": "MPOL_LOCAL"},
        "personality": {"domain": "LINUX"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]}],
        },
        "resources": {
            "devices": [{"allow": True, "access": "r"}],
            "memory": {},
            "cpu": {},
            "pids": {},
            "network": {},
            "blockIO": {
                "weightDevice": [NUMBERS],
                **{f"throttle{kind}Device": [NUMBERS] for kind in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")},
            },
            "hugepageLimits": [{"pageSize": "2MB"}],
            "rdma": {"mlx5_0": {}},
        },
    },
}
FREE_KEYS = {"netDevices.eth0": "netDevices.*", "rdma.mlx5_0": "rdma.*"}


def read_fields(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths of all fields that the parser looks at, lists and free keys as the table writes them."""
    paths: set[str] = set()
    get = reader_module.SpecReader.get

    def noting(reader: reader_module.SpecReader, key: str) -> object:
        paths.add(reader.name(key))
        return get(reader, key)

    monkeypatch.setattr(reader_module.SpecReader, "get", noting)
    monkeypatch.setattr("agent.linux.numa.knows_mode", lambda mode: True)
    assert parse_spec(FULL).warnings == ()
    result = {re.sub(r"\[\d+\]", "[]", path) for path in paths}
    for name, written in FREE_KEYS.items():
        result = {path.replace(name, written) for path in result}
    # Objects and lists of objects are no fields of their own.
    return {path for path in result if not any(other.startswith((f"{path}.", f"{path}[]")) for other in result)}


def test_the_table_has_every_field_that_the_parser_knows_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {field.path for field in fields()} == read_fields(monkeypatch)


def test_no_field_is_there_twice() -> None:
    paths = [field.path for field in fields()]
    assert len(paths) == len(set(paths))


def test_every_test_of_the_table_exists() -> None:
    defined: dict[str, set[str]] = {}
    missing = []
    for field in fields():
        assert field.tests, field.path
        for test in field.tests:
            file, _, name = test.partition("::")
            if file not in defined:
                tree = ast.parse((TESTS / file).read_text())
                defined[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            if name not in defined[file]:
                missing.append(test)
    assert missing == []


# The specification's own list (schema/config-schema.json and config-linux.json of 1.3.0), written down apart from parser and table.
SPECIFICATION = """
ociVersion hostname domainname annotations root.path root.readonly
mounts[]: destination source options type uidMappings[].containerID uidMappings[].hostID uidMappings[].size gidMappings[].containerID
mounts[]: gidMappings[].hostID gidMappings[].size
hooks.prestart[]: path args env timeout
hooks.createRuntime[]: path args env timeout
hooks.createContainer[]: path args env timeout
hooks.startContainer[]: path args env timeout
hooks.poststart[]: path args env timeout
hooks.poststop[]: path args env timeout
process: args commandLine consoleSize.height consoleSize.width cwd env terminal
process: user.uid user.gid user.umask user.additionalGids user.username
process: capabilities.bounding capabilities.permitted capabilities.effective capabilities.inheritable capabilities.ambient
process: apparmorProfile oomScoreAdj selinuxLabel noNewPrivileges rlimits[].hard rlimits[].soft rlimits[].type
process: ioPriority.class ioPriority.priority execCPUAffinity.initial execCPUAffinity.final
process.scheduler: policy nice priority flags runtime deadline period
linux: uidMappings[].containerID uidMappings[].hostID uidMappings[].size gidMappings[].containerID gidMappings[].hostID gidMappings[].size
linux: namespaces[].type namespaces[].path maskedPaths readonlyPaths mountLabel rootfsPropagation cgroupsPath sysctl intelRdt
linux: personality.domain personality.flags netDevices.*.name memoryPolicy.mode memoryPolicy.nodes memoryPolicy.flags
linux.timeOffsets: boottime.secs boottime.nanosecs monotonic.secs monotonic.nanosecs
linux.devices[]: type path fileMode major minor uid gid
linux.seccomp: defaultAction defaultErrnoRet flags listenerPath listenerMetadata architectures
linux.seccomp.syscalls[]: names action errnoRet args[].index args[].value args[].valueTwo args[].op
linux.resources: unified devices[].allow devices[].type devices[].major devices[].minor devices[].access pids.limit
linux.resources: network.classID network.priorities hugepageLimits[].pageSize hugepageLimits[].limit rdma.*.hcaHandles rdma.*.hcaObjects
linux.resources.blockIO: weight leafWeight weightDevice[].major weightDevice[].minor weightDevice[].weight weightDevice[].leafWeight
linux.resources.blockIO: throttleReadBpsDevice[].major throttleReadBpsDevice[].minor throttleReadBpsDevice[].rate
linux.resources.blockIO: throttleWriteBpsDevice[].major throttleWriteBpsDevice[].minor throttleWriteBpsDevice[].rate
linux.resources.blockIO: throttleReadIOPSDevice[].major throttleReadIOPSDevice[].minor throttleReadIOPSDevice[].rate
linux.resources.blockIO: throttleWriteIOPSDevice[].major throttleWriteIOPSDevice[].minor throttleWriteIOPSDevice[].rate
linux.resources.cpu: shares quota burst period realtimeRuntime realtimePeriod cpus mems idle
linux.resources.memory: limit reservation swap kernel kernelTCP swappiness disableOOMKiller useHierarchy checkBeforeUpdate
solaris windows vm zos freebsd
"""


def test_the_table_is_the_specifications_list() -> None:
    listed = set()
    for line in SPECIFICATION.split("\n"):
        prefix, colon, names = line.partition(": ")
        listed |= {f"{prefix}.{name}" for name in names.split()} if colon else set(line.split())
    assert {field.path for field in fields()} == listed


def test_the_printed_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert spec_fields.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line and not line.startswith(" ")]) == len(fields()) + 1
    assert re.fullmatch(r"\d+ applied, \d+ refused, \d+ warned", printed[-1])
