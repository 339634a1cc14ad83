"""From the wire's form of a specification to its document: nothing is lost, and each zero means what the contract says."""

from collections.abc import Iterator
from typing import Any

import pytest

from agent.container.spec.document import parse_resources, parse_spec
from agent.container.spec.reader import SpecReader
from agent.container.spec.seccomp import Seccomp, parse_seccomp
from agent.errors import AgentError
from agent.service import spec_from_proto
from agent.service.spec_from_proto import process_document, resources_document, spec_document
from innkeeper.wire.pb import oci_pb2

_NUMBER, _TEXT, _BOOL, _MESSAGE = "number", "text", "bool", "message"
_KINDS = {3: _NUMBER, 4: _NUMBER, 5: _NUMBER, 13: _NUMBER, 8: _BOOL, 9: _TEXT, 11: _MESSAGE}
"""Field types of a descriptor."""


class Filler:
    """Sets every field of a message, each to another value."""

    def __init__(self) -> None:
        self.numbers = 1000
        self.values: list[object] = []
        self.bools = 0

    def fill(self, message: Any) -> None:
        for field in message.DESCRIPTOR.fields:
            kind = _KINDS[field.type]
            if kind == _MESSAGE and field.message_type.GetOptions().map_entry:
                getattr(message, field.name)[self.value(_TEXT)] = self.value(_TEXT)
            elif kind == _MESSAGE:
                self.fill(getattr(message, field.name).add() if field.is_repeated else _present(message, field.name))
            elif field.is_repeated:
                getattr(message, field.name).extend([self.value(kind), self.value(kind)])
            else:
                setattr(message, field.name, self.value(kind))

    def value(self, kind: str) -> Any:
        if kind == _BOOL:
            self.bools += 1
            return True
        self.numbers += 1
        self.values.append(self.numbers if kind == _NUMBER else f"text {self.numbers}")
        return self.values[-1]


def _present(message: Any, name: str) -> Any:
    getattr(message, name).SetInParent()
    return getattr(message, name)


def leaves(document: object) -> Iterator[object]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from leaves(value)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value)
    else:
        yield document


def test_every_field_of_the_wire_is_in_the_document() -> None:
    spec, filler = oci_pb2.Spec(), Filler()
    filler.fill(spec)
    found = list(leaves(spec_document(spec)))
    assert len(filler.values) > 120
    assert [value for value in filler.values if value not in found] == []
    assert found.count(True) == filler.bools


def test_names_are_the_specifications() -> None:
    spec = oci_pb2.Spec()
    Filler().fill(spec)
    document = spec_document(spec)
    assert sorted(document) == sorted(
        ("ociVersion", "process", "root", "hostname", "mounts", "hooks", "annotations", "linux", "solaris", "windows")
    )
    assert sorted(document["process"]) == sorted(
        (
            *("terminal", "consoleSize", "user", "args", "env", "cwd", "capabilities", "rlimits"),
            *("noNewPrivileges", "apparmorProfile", "oomScoreAdj", "selinuxLabel"),
        )
    )
    assert sorted(document["process"]["user"]) == ["additionalGids", "gid", "uid", "username"]
    assert sorted(document["process"]["capabilities"]) == ["ambient", "bounding", "effective", "inheritable", "permitted"]
    assert sorted(document["hooks"]) == ["createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer"]
    linux = document["linux"]
    assert sorted(linux) == sorted(
        (
            *("uidMappings", "gidMappings", "sysctl", "resources", "cgroupsPath", "namespaces", "devices", "seccomp"),
            *("rootfsPropagation", "maskedPaths", "readonlyPaths", "mountLabel", "intelRdt"),
        )
    )
    assert sorted(linux["uidMappings"][0]) == ["containerID", "hostID", "size"]
    assert sorted(linux["devices"][0]) == ["fileMode", "gid", "major", "minor", "path", "type", "uid"]
    assert sorted(linux["seccomp"]) == ["architectures", "defaultAction", "flags", "syscalls"]
    assert sorted(linux["seccomp"]["syscalls"][0]) == ["action", "args", "errnoRet", "names"]
    assert sorted(linux["seccomp"]["syscalls"][0]["args"][0]) == ["index", "op", "value", "valueTwo"]
    resources = linux["resources"]
    assert sorted(resources) == ["blockIO", "cpu", "devices", "hugepageLimits", "memory", "network", "pids"]
    assert sorted(resources["memory"]) == ["disableOOMKiller", "kernel", "kernelTCP", "limit", "reservation", "swap", "swappiness"]
    assert sorted(resources["cpu"]) == ["cpus", "mems", "period", "quota", "realtimePeriod", "realtimeRuntime", "shares"]
    assert sorted(resources["hugepageLimits"][0]) == ["limit", "pageSize"]
    assert sorted(resources["blockIO"]) == sorted(
        (
            *("weight", "leafWeight", "weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice"),
            *("throttleReadIOPSDevice", "throttleWriteIOPSDevice"),
        )
    )


def test_a_spec_without_linux_is_an_error() -> None:
    with pytest.raises(AgentError, match="Spec does not contain linux field"):
        spec_document(oci_pb2.Spec(Version="1.2.0"))


def linux(**fields: Any) -> oci_pb2.Spec:
    return oci_pb2.Spec(Linux=oci_pb2.Linux(**fields))


# what a zero means (6.1 of the wire's contract)


def test_an_empty_spec_says_nothing() -> None:
    assert spec_document(linux()) == {}
    assert resources_document(oci_pb2.LinuxResources()) == {}
    assert process_document(oci_pb2.Process()) == {}


def test_messages_that_are_there_but_empty_say_nothing() -> None:
    spec = linux(Resources=oci_pb2.LinuxResources(Memory=oci_pb2.LinuxMemory(), CPU=oci_pb2.LinuxCPU()), IntelRdt=oci_pb2.LinuxIntelRdt())
    spec.Root.SetInParent()
    spec.Process.User.SetInParent()
    spec.Process.ConsoleSize.SetInParent()
    spec.Hooks.SetInParent()
    assert spec_document(spec) == {}


@pytest.mark.parametrize("limit", [-1, 1, 1 << 40])
def test_limits_that_are_not_zero_are_kept(limit: int) -> None:
    memory = oci_pb2.LinuxMemory(Limit=limit, Reservation=limit, Swap=limit)
    resources = oci_pb2.LinuxResources(Memory=memory, CPU=oci_pb2.LinuxCPU(Quota=limit), Pids=oci_pb2.LinuxPids(Limit=limit))
    document = resources_document(resources)
    assert document == {
        "memory": {"limit": limit, "reservation": limit, "swap": limit},
        "cpu": {"quota": limit},
        "pids": {"limit": limit},
    }
    parsed = parse_resources(document)
    assert (parsed.memory.limit, parsed.memory.swap, parsed.cpu.quota, parsed.pids) == (limit, limit, limit, limit)


def test_limits_of_zero_are_absent() -> None:
    document = resources_document(
        oci_pb2.LinuxResources(
            Memory=oci_pb2.LinuxMemory(Limit=0, Swappiness=0),
            CPU=oci_pb2.LinuxCPU(Shares=0, Period=100_000),
            Pids=oci_pb2.LinuxPids(Limit=0),
        )
    )
    assert document == {"cpu": {"period": 100_000}}


def test_a_hugepage_limit_of_zero_is_a_limit() -> None:
    """Kubernetes forbids every size that a pod does not ask for in this way."""
    document = resources_document(oci_pb2.LinuxResources(HugepageLimits=[oci_pb2.LinuxHugepageLimit(Pagesize="2MB", Limit=0)]))
    assert document == {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}
    assert parse_resources(document).hugepages == (("2MB", 0),)


@pytest.mark.parametrize(("score", "present"), [(0, False), (-998, True), (1000, True)])
def test_oom_score(score: int, present: bool) -> None:
    assert process_document(oci_pb2.Process(OOMScoreAdj=score)) == ({"oomScoreAdj": score} if present else {})


def test_capabilities_that_are_empty_are_not_those_that_are_absent() -> None:
    """A list of none drops all; no list at all leaves the choice to the core."""
    process = oci_pb2.Process()
    assert "capabilities" not in process_document(process)
    process.Capabilities.SetInParent()
    assert process_document(process)["capabilities"] == {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []}


def test_a_namespace_without_a_path_is_new() -> None:
    spec = linux(Namespaces=[oci_pb2.LinuxNamespace(Type="mount"), oci_pb2.LinuxNamespace(Type="ipc", Path="/run/sandbox-ns/ipc")])
    assert spec_document(spec)["linux"]["namespaces"] == [{"type": "mount"}, {"type": "ipc", "path": "/run/sandbox-ns/ipc"}]


def test_errno_zero_is_a_value() -> None:
    calls = [
        oci_pb2.LinuxSyscall(Names=["a"], Action="SCMP_ACT_ERRNO"),
        oci_pb2.LinuxSyscall(Names=["b"], Action="SCMP_ACT_ERRNO", errnoret=0),
        oci_pb2.LinuxSyscall(Names=["c"], Action="SCMP_ACT_ERRNO", errnoret=38),
    ]
    document = spec_document(linux(Seccomp=oci_pb2.LinuxSeccomp(DefaultAction="SCMP_ACT_ALLOW", Syscalls=calls)))
    told = [call.get("errnoRet", "absent") for call in document["linux"]["seccomp"]["syscalls"]]
    assert told == ["absent", 0, 38]


def test_arguments_of_a_syscall_keep_their_zeros() -> None:
    argument = oci_pb2.LinuxSeccompArg(Index=0, Value=0, ValueTwo=0, Op="SCMP_CMP_EQ")
    spec = linux(Seccomp=oci_pb2.LinuxSeccomp(DefaultAction="x", Syscalls=[oci_pb2.LinuxSyscall(Names=["a"], Args=[argument])]))
    assert spec_document(spec)["linux"]["seccomp"]["syscalls"] == [
        {"names": ["a"], "args": [{"index": 0, "value": 0, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}
    ]


@pytest.mark.parametrize(
    ("rule", "document"),
    [
        ({"Allow": False, "Access": "rwm"}, {"allow": False, "access": "rwm"}),
        (
            {"Allow": True, "Type": "c", "Major": 1, "Minor": 3, "Access": "rw"},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        ),
        ({"Allow": True, "Type": "c", "Major": 5, "Access": "r"}, {"allow": True, "type": "c", "major": 5, "minor": 0, "access": "r"}),
        ({"Allow": True, "Type": "b", "Major": -1, "Minor": -1}, {"allow": True, "type": "b", "major": -1, "minor": -1}),
        ({"Allow": True, "Type": "a"}, {"allow": True, "type": "a"}),
    ],
)
def test_device_rules(rule: dict[str, Any], document: dict[str, Any]) -> None:
    """0:0 is "all": there is no such device. A lone zero is a number."""
    assert resources_document(oci_pb2.LinuxResources(Devices=[oci_pb2.LinuxDeviceCgroup(**rule)])) == {"devices": [document]}


@pytest.mark.parametrize(
    ("device", "document"),
    [
        (
            {"Path": "/dev/x", "Type": "c", "Major": 1, "Minor": 0},
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 0, "uid": 0, "gid": 0},
        ),
        ({"Path": "/dev/p", "Type": "p", "FileMode": 0o600}, {"path": "/dev/p", "type": "p", "fileMode": 0o600, "uid": 0, "gid": 0}),
    ],
)
def test_devices(device: dict[str, Any], document: dict[str, Any]) -> None:
    assert spec_document(linux(Devices=[oci_pb2.LinuxDevice(**device)]))["linux"]["devices"] == [document]


def test_numbers_of_block_devices_and_mappings_keep_their_zeros() -> None:
    throttle = oci_pb2.LinuxThrottleDevice(Major=8, Minor=0, Rate=0)
    weight = oci_pb2.LinuxWeightDevice(Major=8, Minor=0, Weight=10)
    block = oci_pb2.LinuxBlockIO(ThrottleReadBpsDevice=[throttle], WeightDevice=[weight])
    assert resources_document(oci_pb2.LinuxResources(BlockIO=block))["blockIO"] == {
        "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
    }
    mapping = oci_pb2.LinuxIDMapping(HostID=0, ContainerID=0, Size=1)
    assert spec_document(linux(UIDMappings=[mapping]))["linux"]["uidMappings"] == [{"hostID": 0, "containerID": 0, "size": 1}]


def test_what_a_shim_sends_is_understood_by_the_core() -> None:
    """The shape of a pod's container, its zeros as protobuf leaves them."""
    spec = oci_pb2.Spec(Version="1.1.0", Hostname="pod", Annotations={"io.kubernetes.cri.container-type": "container"})
    spec.Root.Path = "/run/kata-containers/shared/containers/c1/rootfs"
    spec.Process.Args.extend(["/bin/sh", "-c", "true"])
    spec.Process.Env.append("PATH=/bin")
    spec.Process.Cwd = "/"
    spec.Process.OOMScoreAdj = 1000
    spec.Process.Rlimits.add(Type="RLIMIT_NOFILE", Hard=1024, Soft=1024)
    spec.Process.Capabilities.Bounding.append("CAP_CHOWN")
    for kind in ("ipc", "uts", "mount"):
        spec.Linux.Namespaces.add(Type=kind)
    spec.Linux.CgroupsPath = "kubepods-pod1.slice:cri-containerd:c1"
    spec.Linux.Resources.CPU.Shares = 2
    spec.Linux.Resources.Memory.SetInParent()
    spec.Linux.MaskedPaths.append("/proc/kcore")
    spec.Mounts.add(destination="/proc", type="proc", source="proc", options=["nosuid"])
    parsed = parse_spec(spec_document(spec))
    assert parsed.process is not None
    assert parsed.process.oom_score_adj == 1000
    assert parsed.linux.resources.cpu.shares == 2
    assert parsed.linux.resources.memory.limit is None
    assert parsed.linux.cgroups_path == "kubepods-pod1.slice/cri-containerd/c1"
    assert parsed.warnings == ()


def test_an_equal_profile_is_one_object_and_parsed_once() -> None:
    def profile(second: int = 0) -> oci_pb2.Spec:
        rule = oci_pb2.LinuxSyscall(Names=["mount"], Action="SCMP_ACT_ERRNO", errnoret=13)
        rule.Args.add(Index=0, Value=1, ValueTwo=second, Op="SCMP_CMP_EQ")
        return linux(Seccomp=oci_pb2.LinuxSeccomp(DefaultAction="SCMP_ACT_ALLOW", Syscalls=[rule]))

    def parsed(document: dict[str, Any]) -> tuple[Seccomp, list[str]]:
        node = SpecReader(document["linux"]["seccomp"], "linux.seccomp", [])
        return parse_seccomp(node), node.warnings

    first, again, other = (spec_document(spec) for spec in (profile(), profile(), profile(7)))
    assert first["linux"]["seccomp"] is again["linux"]["seccomp"]
    assert parsed(first)[0] is parsed(again)[0]
    plain = {"linux": {"seccomp": dict(first["linux"]["seccomp"])}}
    assert parsed(plain)[0] == parsed(first)[0]
    for _ in range(2):  # what is warned of is warned of each time
        assert "valueTwo" in parsed(other)[1][0]


def test_profiles_that_are_kept_have_a_bound() -> None:
    """In bytes: a message may have four mebibytes of profile."""

    def document(name: str) -> object:
        return spec_document(linux(Seccomp=oci_pb2.LinuxSeccomp(Syscalls=[oci_pb2.LinuxSyscall(Names=[name])])))["linux"]["seccomp"]

    document("x" * (1 << 20))
    for number in range(100):
        document(f"{number}" + "x" * 10_000)
    kept = sum(map(len, spec_from_proto._profiles))
    assert 64 << 10 < kept <= spec_from_proto.PROFILES_BYTES
