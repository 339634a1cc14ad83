"""Handler of GetMetrics: statistics of agent and guest as Prometheus text.

Names and items are those of Kata's agent. Everything is read in a worker, because statvfs(3) may
block on a file system that the host serves. Values are those of the kernel's files, except that
the kilobytes of /proc/meminfo are converted to bytes.
"""

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from agent.linux.mount_table import mount_table
from agent.worker import run_in_worker
from innkeeper.wire.pb.agent_pb2 import Metrics

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2

Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
STATUS_ITEMS = """
vmpeak vmsize vmlck vmpin vmhwm vmrss rssanon rssfile rssshmem vmdata vmstk vmexe vmlib vmpte vmswap hugetlbpages
voluntary_ctxt_switches nonvoluntary_ctxt_switches
"""
CPU_ITEMS = "user nice system idle iowait irq softirq steal guest guest_nice"
NETDEV_ITEMS = """
recv_bytes recv_packets recv_errs recv_drop recv_fifo recv_frame recv_compressed recv_multicast
sent_bytes sent_packets sent_errs sent_drop sent_fifo sent_colls sent_carrier sent_compressed
"""
DISK_ITEMS = """
reads merged sectors_read time_reading writes writes_merged sectors_written time_writing in_progress time_in_progress
weighted_time_in_progress discards discards_merged sectors_discarded time_discarding flushes time_flushing
"""
MEMINFO_NAMES = {
    "AnonHugePages": "anon_hugepages",
    "FileHugePages": "file_hugepages",
    "ShmemHugePages": "shmem_hugepages",
    "HugePages_Total": "hugepages_total",
    "HugePages_Free": "hugepages_free",
    "HugePages_Rsvd": "hugepages_rsvd",
    "HugePages_Surp": "hugepages_surp",
    "Percpu": "per_cpu",
    "DirectMap4k": "direct_map_4k",
    "DirectMap2M": "direct_map_2M",
    "DirectMap4M": "direct_map_4M",
    "DirectMap1G": "direct_map_1G",
}
"""Names that do not follow the rule of `snake`."""
WITHOUT_SPACE = """
autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs fusectl mqueue nsfs proc pstore securityfs sysfs tracefs
"""
"""File systems that hold no data of users."""
_scrapes = 0


class Family(NamedTuple):
    """One metric: its name, the text of its HELP line, its type and its samples."""

    name: str
    help: str
    kind: str
    samples: Samples


async def get_metrics(sandbox: "Sandbox", request: "agent_pb2.GetMetricsRequest") -> Metrics:
    """Return the text of all families. The count of scrapes includes this call."""
    global _scrapes
    _scrapes += 1
    pid, scrapes = os.getpid(), _scrapes
    return Metrics(metrics=(await run_in_worker(lambda: text(pid, scrapes).encode(errors="replace"), "metrics")).decode())


def text(pid: int, scrapes: int) -> str:
    """Return the metrics of the guest and of the agent `pid` in exposition format 0.0.4."""
    lines = []
    for family in (*_agent(pid, scrapes), *_guest()):
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            within = ",".join(f'{key}="{_escape(word)}"' for key, word in labels)
            lines.append(f"{family.name}{f'{{{within}}}' if within else ''} {value:.16g}")
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _agent(pid: int, scrapes: int) -> Iterator[Family]:
    """Yield the families about the agent's process."""
    stat = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
    times = dict(zip(("utime", "stime", "cutime", "cstime"), map(float, stat[11:15]), strict=True))
    values = {key.lower(): _number(value) for key, value in _pairs(f"/proc/{pid}/status")}
    status = {item: values.get(item, 0.0) for item in STATUS_ITEMS.split()}
    yield Family("kata_agent_io_stat", "Agent process IO statistics.", "gauge", _items(_pairs(f"/proc/{pid}/io")))
    yield Family("kata_agent_proc_stat", "Agent process statistics.", "gauge", _labelled(times))
    yield Family("kata_agent_proc_status", "Agent process status.", "gauge", _labelled(status))
    yield Family("kata_agent_scrape_count", "Metrics scrape count.", "counter", [((), float(scrapes))])
    yield Family("kata_agent_threads", "Agent process threads.", "gauge", [((), float(stat[17]))])
    yield Family("kata_agent_total_time", "Agent process total time.", "gauge", [((), (times["utime"] + times["stime"]) / TICKS)])
    yield Family("kata_agent_total_vm", "Agent process total VM size.", "gauge", [((), float(stat[20]))])
    yield Family("kata_agent_total_rss", "Agent process total RSS size.", "gauge", [((), float(stat[21]) * PAGE)])


def _guest() -> Iterator[Family]:
    """Yield the families about the guest."""
    load = _read("/proc/loadavg").split()
    running, _, tasks = load[3].partition("/")
    loads = dict(zip(("load1", "load5", "load15"), map(float, load), strict=False))
    memory = {snake(key): _number(value) * (1024 if value.endswith("kB") else 1) for key, value in _pairs("/proc/meminfo")}
    vmstat = [tuple(line.split(None, 1)) for line in _read("/proc/vmstat").splitlines()]
    yield Family("kata_guest_load", "Guest system load.", "gauge", _labelled(loads))
    yield Family("kata_guest_tasks", "Guest system load.", "gauge", _labelled({"cur": float(running), "max": float(tasks)}))
    yield Family("kata_guest_cpu_time", "Guest CPU statistics.", "gauge", _cpu_times(_read("/proc/stat")))
    yield Family("kata_guest_vm_stat", "Guest virtual memory statistics.", "gauge", _items(vmstat))
    yield Family("kata_guest_meminfo", "Statistics about memory usage in the system.", "gauge", _labelled(memory))
    yield Family("kata_guest_netdev_stat", "Guest net devices statistics.", "gauge", _netdevs(_read("/proc/net/dev")))
    yield Family("kata_guest_diskstat", "Disks statistics in system.", "gauge", _disks(_read("/proc/diskstats")))
    yield from _filesystems()


def snake(name: str) -> str:
    """Return the item name for a line of /proc/meminfo.

    `Active(anon)` becomes active_anon, and `SUnreclaim` becomes s_unreclaim.
    """
    if name in MEMINFO_NAMES:
        return MEMINFO_NAMES[name]
    words = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words).lower()


def _cpu_times(stat: str) -> Iterator[tuple[Labels, float]]:
    for line in stat.splitlines():
        name, *values = line.split()
        if name.startswith("cpu"):
            for item, value in zip(CPU_ITEMS.split(), values, strict=False):
                yield (("cpu", name[3:] or "total"), ("item", item)), float(value)


def _netdevs(table: str) -> Iterator[tuple[Labels, float]]:
    for line in table.splitlines()[2:]:
        name, _, values = line.partition(":")
        for item, value in zip(NETDEV_ITEMS.split(), values.split(), strict=False):
            yield (("interface", name.strip()), ("item", item)), float(value)


def _disks(table: str) -> Iterator[tuple[Labels, float]]:
    for line in table.splitlines():
        _major, _minor, name, *values = line.split()
        for item, value in zip(DISK_ITEMS.split(), values, strict=False):
            yield (("disk", name), ("item", item)), float(value)


def _filesystems() -> list[Family]:
    """Return the space and the inodes of every mount that holds data."""
    space: list[tuple[Labels, float]] = []
    inodes: list[tuple[Labels, float]] = []
    without_space = set(WITHOUT_SPACE.split())
    for entry in mount_table():
        if entry.filesystem in without_space:
            continue
        try:
            found = os.statvfs(entry.mountpoint)
        except OSError:
            continue  # hidden by another mount, or its server is gone
        unit = found.f_frsize
        for target, total, free, available in (
            (space, found.f_blocks * unit, found.f_bfree * unit, found.f_bavail * unit),
            (inodes, found.f_files, found.f_ffree, found.f_favail),
        ):
            for item, value in (("total", total), ("free", free), ("available", available)):
                target.append(((("mount", entry.mountpoint), ("device", entry.source), ("item", item)), float(value)))
    return [
        Family("kata_guest_filesystem_bytes", "Guest filesystem space.", "gauge", space),
        Family("kata_guest_filesystem_inodes", "Guest filesystem inodes.", "gauge", inodes),
    ]


def _read(path: str) -> str:
    """Return the text of a file, or "" if this kernel does not have it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _pairs(path: str) -> list[tuple[str, str]]:
    """Return the lines `key: value` of a file as pairs."""
    return [(key, value.strip()) for key, _, value in (line.partition(":") for line in _read(path).splitlines())]


def _number(value: str) -> float:
    """Return the number that a value begins with, or 0 if there is none."""
    first = value.split(None, 1)[0] if value else ""
    return float(first) if first.isdecimal() else 0.0


def _items(pairs: Iterable[tuple[str, ...]]) -> Samples:
    return [((("item", key),), _number(value)) for key, value in pairs]


def _labelled(values: dict[str, float]) -> Samples:
    return [((("item", key),), value) for key, value in values.items()]


METHODS: "Handlers" = {"GetMetrics": get_metrics}
