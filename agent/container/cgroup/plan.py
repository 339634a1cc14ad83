"""The specification's limits (cgroup v1 units) as writes to cgroup v2 files: conversions only, nothing is written here."""

import math
from dataclasses import dataclass

from agent.container.spec.resources import BlockIO, Cpu, Memory, Resources

DEFAULT_PERIOD = 100_000  # microseconds


@dataclass(frozen=True, slots=True)
class Write:
    """One value for one file of the group. `field` is the spec's path; `optional` values may meet a file that is not there."""

    field: str
    controller: str
    file: str
    value: str
    optional: bool = False
    instead: "Write | None" = None
    """What is written where the file is not there."""

    def describe(self) -> str:
        """One line that says what is written."""
        instead = f", or {self.instead.value!r} to {self.instead.file}" if self.instead else ""
        return f"write {self.value!r} to {self.file}{instead} ({self.field})"


def writes(resources: Resources) -> list[Write]:
    """All limits, in the order in which they are written; `unified` last."""
    result = _memory(resources.memory) + _cpu(resources.cpu)
    if resources.pids is not None:
        # 0 means no process beside the first: pids.max 0 would refuse that one to be born in the group.
        value = "max" if resources.pids < 0 else str(max(1, resources.pids))
        result.append(Write("linux.resources.pids.limit", "pids", "pids.max", value))
    result += _block_io(resources.block_io)
    for size, limit in resources.hugepages:
        field = f"linux.resources.hugepageLimits[{size}]"
        result.append(Write(field, "hugetlb", f"hugetlb.{size}.max", str(limit)))
        result.append(Write(field, "hugetlb", f"hugetlb.{size}.rsvd.max", str(limit), optional=True))
    for device, handles, objects in resources.rdma:
        words = [f"hca_handle={handles}"] if handles is not None else []
        words += [f"hca_object={objects}"] if objects is not None else []
        if words:
            result.append(Write(f"linux.resources.rdma.{device}", "rdma", "rdma.max", " ".join([device, *words])))
    for name, value in resources.unified.items():
        result += [Write(f"linux.resources.unified.{name}", name.partition(".")[0], name, line) for line in value.splitlines() or [""]]
    return result


def cpu_weight(shares: int) -> int:
    """cpu.weight (1..10000) of cpu.shares (2..262144), so that the default 1024 becomes the default 100 (runc 1.3.2 and later)."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight (1..10000) of blkio.weight (10..1000)."""
    return 1 + (weight - 10) * 9999 // 990


def _memory(memory: Memory) -> list[Write]:
    result = []
    path = "linux.resources.memory"
    if memory.swap is not None or memory.limit == -1:
        unlimited = memory.swap is None or memory.swap < 0
        value = "max" if unlimited else str((memory.swap or 0) - (memory.limit or 0))
        # A kernel without swap accounting has no such file: then there is nothing to limit to 0, or to leave open.
        optional = value in ("0", "max")
        result.append(Write(f"{path}.swap", "memory", "memory.swap.max", value, optional))
    if memory.limit is not None:
        result.append(Write(f"{path}.limit", "memory", "memory.max", _or_max(memory.limit)))
    if memory.reservation is not None:
        result.append(Write(f"{path}.reservation", "memory", "memory.low", _or_max(memory.reservation)))
    return result


def _cpu(cpu: Cpu) -> list[Write]:
    result = []
    path = "linux.resources.cpu"
    if cpu.idle is not None:
        result.append(Write(f"{path}.idle", "cpu", "cpu.idle", str(cpu.idle)))
    if cpu.shares and not cpu.idle:
        result.append(Write(f"{path}.shares", "cpu", "cpu.weight", str(cpu_weight(cpu.shares))))
    if cpu.burst is not None:
        result.append(Write(f"{path}.burst", "cpu", "cpu.max.burst", str(cpu.burst)))
    if cpu.quota is not None or cpu.period:
        quota = "max" if cpu.quota is None or cpu.quota <= 0 else str(cpu.quota)
        result.append(Write(f"{path}.quota", "cpu", "cpu.max", f"{quota} {cpu.period or DEFAULT_PERIOD}"))
    for name, value in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        if value:
            result.append(Write(f"{path}.{name}", "cpuset", f"cpuset.{name}", value))
    return result


def _block_io(block: BlockIO) -> list[Write]:
    result = []
    path = "linux.resources.blockIO"
    if block.weight:
        result.append(_weight(f"{path}.weight", "default", block.weight))
    for major, minor, weight in block.device_weights:
        if weight:
            result.append(_weight(f"{path}.weightDevice", f"{major}:{minor}", weight))
    for (major, minor), limits in block.throttle.items():
        words = " ".join([f"{word}={rate or 'max'}" for word, rate in limits.items()])
        result.append(Write(f"{path}.throttle", "io", "io.max", f"{major}:{minor} {words}"))
    return result


def _weight(field: str, device: str, weight: int) -> Write:
    """The scheduler that has weights of its own takes the specification's number; the cost model (io.cost.*) another scale."""
    instead = Write(field, "io", "io.weight", f"{device} {io_weight(weight)}")
    return Write(field, "io", "io.bfq.weight", f"{device} {weight}", instead=instead)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)
