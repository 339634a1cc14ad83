"""`linux.resources` of the specification: the limits, still in its (cgroup v1) units."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.container.spec.reader import I64, U32, U64, SpecReader
from agent.errors import Refused

UNIFIED_NAME = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")
HUGEPAGE_SIZE = re.compile(r"[1-9][0-9]*[KMG]B")
CPU_LIST = re.compile(r"[0-9,\s-]*")


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Access to devices that a cgroup gets or loses.

    `type` is `a`, `b` or `c`. None as a number means any. `access` is a subset of rwm.
    """

    allow: bool
    type: str
    major: int | None
    minor: int | None
    access: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Limits of memory in bytes. -1 is unlimited. `swap` counts memory and swap together."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    check_before_update: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Limits of the CPU. Shares are weights. Quota, period and burst are in microseconds."""

    shares: int = 0
    quota: int | None = None
    period: int = 0
    burst: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""


@dataclass(frozen=True, slots=True)
class BlockIO:
    """Limits of block I/O. Weights are 10..1000.

    `throttle` maps (major, minor) to the keys of io.max.
    """

    weight: int = 0
    device_weights: tuple[tuple[int, int, int], ...] = ()
    throttle: Mapping[tuple[int, int], Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """All limits of a cgroup. None or 0: not set."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: int | None = None
    block_io: BlockIO = BlockIO()
    hugepages: tuple[tuple[str, int], ...] = ()
    rdma: tuple[tuple[str, int | None, int | None], ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


def read_resources(reader: SpecReader) -> Resources:
    """Return `linux.resources` as an object. Raises Refused."""
    _refuse_network(reader)
    resources = Resources(
        devices=tuple([_device_rule(rule) for rule in reader.children("devices")]),
        memory=_memory(reader),
        cpu=_cpu(reader),
        pids=_pids(reader),
        block_io=_block_io(reader),
        hugepages=_hugepages(reader),
        rdma=_rdma(reader),
        unified=_unified(reader),
    )
    reader.finish()
    return resources


def _refuse_network(reader: SpecReader) -> None:
    network = reader.child("network")
    if network is None:
        return
    network.refuse_known("priorities", reason="cgroup v2 has no file for it")
    if network.integer("classID", 0, U32, 0):
        raise Refused(network.name("classID"), "cgroup v2 has no file for it")
    network.finish()


def _device_rule(reader: SpecReader) -> DeviceRule:
    kind = reader.string("type", "a") or "a"
    if kind not in ("a", "b", "c"):
        raise Refused(reader.name("type"), f"{kind!r} is not a, b or c")
    access = reader.string("access")
    if not access:
        access = "rwm" if kind == "a" else ""
    if not access or set(access) - set("rwm"):
        raise Refused(reader.name("access"), f"{access!r} is not made of r, w and m")
    allow = reader.boolean("allow")
    major, minor = reader.optional("major", -1, U32), reader.optional("minor", -1, U32)
    reader.finish()
    return DeviceRule(allow, kind, None if major == -1 else major, None if minor == -1 else minor, access)


def _memory(reader: SpecReader) -> Memory:
    memory = reader.child("memory")
    if memory is None:
        return Memory()
    if memory.optional("swappiness", 0, U64) is not None:
        raise Refused(memory.name("swappiness"), "cgroup v2 has no file for it")
    if memory.boolean("disableOOMKiller"):
        raise Refused(memory.name("disableOOMKiller"), "cgroup v2 has no file for it")
    if not memory.boolean("useHierarchy", True):
        raise Refused(memory.name("useHierarchy"), "cgroup v2 always accounts hierarchically")
    for key in ("kernel", "kernelTCP"):
        if memory.integer(key, -1, I64, 0) > 0:
            memory.warnings.append(f"{memory.name(key)}: deprecated, the kernel has no such limit any more")
    limit = memory.integer("limit", -1, I64, 0) or None
    swap = memory.integer("swap", -1, I64, 0) or None
    if swap is not None and swap > 0:
        if limit is None or limit < 0:
            raise Refused(memory.name("swap"), "needs a memory limit")
        if swap < limit:
            raise Refused(memory.name("swap"), f"{swap} is below limit, {limit}: it counts memory and swap together")
    result = Memory(limit, memory.integer("reservation", -1, I64, 0) or None, swap, memory.boolean("checkBeforeUpdate"))
    memory.finish()
    return result


def _cpu(reader: SpecReader) -> Cpu:
    cpu = reader.child("cpu")
    if cpu is None:
        return Cpu()
    for key in ("realtimeRuntime", "realtimePeriod"):
        if cpu.integer(key, -I64, U64, 0):
            raise Refused(cpu.name(key), "cgroup v2 has no file for it")
    lists = {key: cpu.string(key) for key in ("cpus", "mems")}
    for key, value in lists.items():
        if not CPU_LIST.fullmatch(value):
            raise Refused(cpu.name(key), f"{value[:64]!r} is not a list like 0-3,7")
    idle = cpu.optional("idle", 0, 1)
    result = Cpu(
        shares=cpu.integer("shares", 0, U64, 0),
        quota=cpu.integer("quota", -I64, I64, 0) or None,
        period=cpu.integer("period", 0, U64, 0),
        burst=cpu.integer("burst", 0, U64, 0) or None,
        idle=idle,
        cpus=lists["cpus"],
        mems=lists["mems"],
    )
    cpu.finish()
    return result


def _pids(reader: SpecReader) -> int | None:
    pids = reader.child("pids")
    if pids is None:
        return None
    limit = pids.optional("limit", -1, I64)
    pids.finish()
    return limit


_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


def _block_io(reader: SpecReader) -> BlockIO:
    block = reader.child("blockIO")
    if block is None:
        return BlockIO()
    if block.integer("leafWeight", 0, 1000, 0):
        raise Refused(block.name("leafWeight"), "cgroup v2 has no file for it")
    weight = _weight(block)
    weights = []
    for device in block.children("weightDevice"):
        if device.integer("leafWeight", 0, 1000, 0):
            raise Refused(device.name("leafWeight"), "cgroup v2 has no file for it")
        numbers = device.integer("major", 0, U32, 0), device.integer("minor", 0, U32, 0)
        weights.append((*numbers, _weight(device)))
        device.finish()
    throttle: dict[tuple[int, int], dict[str, int]] = {}
    for key, word in _THROTTLES.items():
        for device in block.children(key):
            numbers = device.integer("major", 0, U32, 0), device.integer("minor", 0, U32, 0)
            throttle.setdefault(numbers, {})[word] = device.integer("rate", 0, U64, 0)
            device.finish()
    block.finish()
    return BlockIO(weight, tuple(weights), throttle)


def _weight(reader: SpecReader) -> int:
    weight = reader.integer("weight", 0, 1000, 0)
    if weight and weight < 10:
        raise Refused(reader.name("weight"), f"{weight} is not between 10 and 1000")
    return weight


def _hugepages(reader: SpecReader) -> tuple[tuple[str, int], ...]:
    result = []
    for limit in reader.children("hugepageLimits"):
        size = limit.string("pageSize")
        if not HUGEPAGE_SIZE.fullmatch(size):
            raise Refused(limit.name("pageSize"), f"{size[:64]!r} is not a size like 2MB")
        result.append((size, limit.integer("limit", 0, U64, 0)))
        limit.finish()
    return tuple(result)


def _rdma(reader: SpecReader) -> tuple[tuple[str, int | None, int | None], ...]:
    rdma = reader.child("rdma")
    if rdma is None:
        return ()
    result = []
    for device in rdma.document:
        if not device or not device.replace("_", "").replace("-", "").isalnum():
            raise Refused(rdma.name(device[:64]), "not a device's name")
        limits = rdma.required_child(device)
        result.append((device, limits.optional("hcaHandles", 0, U32), limits.optional("hcaObjects", 0, U32)))
        limits.finish()
    return tuple(result)


def _unified(reader: SpecReader) -> dict[str, str]:
    unified = reader.mapping("unified")
    for name in unified:
        if not UNIFIED_NAME.fullmatch(name) or name.startswith("cgroup."):
            raise Refused(reader.name(f"unified.{name[:64]}"), "not a controller's file")
    return unified
