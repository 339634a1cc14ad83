"""Reading a cgroup's resource usage from its files."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IoStats:
    """The line of io.stat for one device."""

    major: int
    minor: int
    values: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStats:
    """The resource usage of a cgroup, in bytes, microseconds (`usec`) and counts.

    Figures of a controller that is not enabled are 0. A limit of 0 means unlimited.
    """

    cpu_usage_usec: int = 0
    cpu_user_usec: int = 0
    cpu_system_usec: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_usec: int = 0
    memory_current: int = 0
    memory_peak: int = 0
    memory_limit: int = 0
    memory_limit_hits: int = 0
    memory_oom_kills: int = 0
    swap_current: int = 0
    swap_limit: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    pids_current: int = 0
    pids_limit: int = 0
    io: tuple[IoStats, ...] = ()
    hugetlb: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Page size -> (bytes in use, number of times the limit was hit)."""


def read_stats(read: Callable[[str], str], names: list[str]) -> ContainerStats:
    """Return the resource usage.

    `read` returns a file's content, or "" if it does not exist. `names` are the cgroup's files.
    """
    cpu = flat(read("cpu.stat"))
    events = flat(read("memory.events"))
    sizes = [name.split(".")[1] for name in names if name.startswith("hugetlb.") and name.endswith(".current") and "rsvd" not in name]
    return ContainerStats(
        cpu_usage_usec=cpu.get("usage_usec", 0),
        cpu_user_usec=cpu.get("user_usec", 0),
        cpu_system_usec=cpu.get("system_usec", 0),
        cpu_periods=cpu.get("nr_periods", 0),
        cpu_throttled_periods=cpu.get("nr_throttled", 0),
        cpu_throttled_usec=cpu.get("throttled_usec", 0),
        memory_current=single(read("memory.current")),
        memory_peak=single(read("memory.peak")),
        memory_limit=single(read("memory.max")),
        memory_limit_hits=events.get("max", 0),
        memory_oom_kills=events.get("oom_kill", 0),
        swap_current=single(read("memory.swap.current")),
        swap_limit=single(read("memory.swap.max")),
        memory_stat=flat(read("memory.stat")),
        pids_current=single(read("pids.current")),
        pids_limit=single(read("pids.max")),
        io=io_stats(read("io.stat")),
        hugetlb={size: (single(read(f"hugetlb.{size}.current")), flat(read(f"hugetlb.{size}.events")).get("max", 0)) for size in sizes},
    )


def flat(text: str) -> dict[str, int]:
    """Parse a flat-keyed file, which has one `name value` per line."""
    result = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            result[name] = int(value)
    return result


def single(text: str) -> int:
    """Parse a file of one number. Returns 0 for `max` and for an empty file."""
    value = text.strip()
    return int(value) if value.isdecimal() else 0


def io_stats(text: str) -> tuple[IoStats, ...]:
    """Parse io.stat, which has one `major:minor key=value ...` per line."""
    result = []
    for line in text.splitlines():
        numbers, *words = line.split()
        major, _, minor = numbers.partition(":")
        values = {key: int(value) for key, _, value in (word.partition("=") for word in words) if value.isdecimal()}
        result.append(IoStats(int(major), int(minor), values))
    return tuple(result)
