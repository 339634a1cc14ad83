"""Converting the specification's limits (in cgroup v1 units) to writes of cgroup v2 files.

This module only computes the writes. limits.py carries them out.
"""

import math
from dataclasses import dataclass

from agent.container.spec.resources import BlockIO, Cpu, Memory, Resources

DEFAULT_PERIOD = 100_000  # microseconds


@dataclass(frozen=True, slots=True)
class Write:
    """A value to write to a file of the cgroup.

    `field` is the path in the spec, for errors. An `optional` write is skipped if the kernel does
    not have the file.
    """

    field: str
    controller: str
    file: str
    value: str
    optional: bool = False
    fallback: "Write | None" = None
    """The write to do instead if the kernel does not have the file."""

    def describe(self) -> str:
        """Return a one-line description of the write."""
        fallback = f", or {self.fallback.value!r} to {self.fallback.file}" if self.fallback else ""
        return f"write {self.value!r} to {self.file}{fallback} ({self.field})"


def writes(resources: Resources) -> list[Write]:
    """Return all writes, in the order to do them. Those of `unified` are last, so they win."""
    result = _memory(resources.memory) + _cpu(resources.cpu)
    if resources.pids is not None:
        # 0 is raised to 1. With pids.max 0 the first process could not be created in the cgroup.
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
    """Convert cpu.shares (2 to 262144) to cpu.weight (1 to 10000).

    The formula is that of runc 1.3.2 and later, which maps the default 1024 to the default 100.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """Convert blkio.weight (10 to 1000) to io.weight (1 to 10000)."""
    return 1 + (weight - 10) * 9999 // 990


def _memory(memory: Memory) -> list[Write]:
    result = []
    path = "linux.resources.memory"
    if memory.swap is not None or memory.limit == -1:
        unlimited = memory.swap is None or memory.swap < 0
        value = "max" if unlimited else str((memory.swap or 0) - (memory.limit or 0))
        # A kernel without swap accounting lacks the file. No swap and unlimited swap need none.
        optional = value in ("0", "max")
        result.append(Write(f"{path}.swap", "memory", "memory.swap.max", value, optional=optional))
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
    """Return the write of an I/O weight.

    The BFQ scheduler has a file of its own, on the scale of the specification. Without it the
    weight goes to io.weight, which belongs to the cost model (io.cost.*) and has another scale.
    """
    fallback = Write(field, "io", "io.weight", f"{device} {io_weight(weight)}")
    return Write(field, "io", "io.bfq.weight", f"{device} {weight}", fallback=fallback)


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)
