"""Converts the statistics of a container into Kata's message, which follows cgroup v1."""

from agent.container.cgroup.stats import ContainerStats
from innkeeper.wire.pb import agent_pb2 as pb

_COUNTERS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")
_COLUMNS = (0, 1, 2, 3, 8, 9, 10, 11)
"""Columns of /proc/net/dev, in the order of _COUNTERS."""


def response(stats: ContainerStats) -> pb.StatsContainerResponse:
    """Return the response of StatsContainer.

    Microseconds are converted to nanoseconds. The network statistics are those of the guest, which
    all of its containers share. In addition to the names of memory.stat, `stats` has `oom_kill` of
    memory.events: the number of processes that were killed out of memory.
    """
    cgroup = pb.CgroupStats(
        cpu_stats=_cpu(stats),
        memory_stats=_memory(stats),
        pids_stats=pb.PidsStats(current=stats.pids_current, limit=stats.pids_limit),
        blkio_stats=_blkio(stats),
        hugetlb_stats={size: pb.HugetlbStats(usage=usage, failcnt=hits) for size, (usage, hits) in stats.hugetlb.items()},
    )
    return pb.StatsContainerResponse(cgroup_stats=cgroup, network_stats=network_stats())


def _cpu(stats: ContainerStats) -> pb.CpuStats:
    return pb.CpuStats(
        cpu_usage=pb.CpuUsage(
            total_usage=stats.cpu_usage_usec * 1000,
            usage_in_kernelmode=stats.cpu_system_usec * 1000,
            usage_in_usermode=stats.cpu_user_usec * 1000,
        ),
        throttling_data=pb.ThrottlingData(
            periods=stats.cpu_periods,
            throttled_periods=stats.cpu_throttled_periods,
            throttled_time=stats.cpu_throttled_usec * 1000,
        ),
    )


def _memory(stats: ContainerStats) -> pb.MemoryStats:
    return pb.MemoryStats(
        cache=stats.memory_stat.get("file", 0),
        usage=pb.MemoryData(
            usage=stats.memory_current, max_usage=stats.memory_peak, failcnt=stats.memory_limit_hits, limit=stats.memory_limit
        ),
        swap_usage=pb.MemoryData(usage=stats.swap_current, limit=stats.swap_limit),
        kernel_usage=pb.MemoryData(usage=stats.memory_stat.get("kernel", 0)),
        use_hierarchy=True,
        stats={**stats.memory_stat, "oom_kill": stats.memory_oom_kills},
    )


def _blkio(stats: ContainerStats) -> pb.BlkioStats:
    bytes_, operations = [], []
    for device in stats.io:
        for op, letter in (("Read", "r"), ("Write", "w")):
            size, count = device.values.get(f"{letter}bytes", 0), device.values.get(f"{letter}ios", 0)
            bytes_.append(pb.BlkioStatsEntry(major=device.major, minor=device.minor, op=op, value=size))
            operations.append(pb.BlkioStatsEntry(major=device.major, minor=device.minor, op=op, value=count))
    return pb.BlkioStats(io_service_bytes_recursive=bytes_, io_serviced_recursive=operations)


def network_stats(path: str = "/proc/net/dev") -> list[pb.NetworkStats]:
    """Return the statistics of all interfaces except loopback (proc_pid_net(5))."""
    with open(path, encoding="ascii") as file:
        lines = file.readlines()[2:]
    result = []
    for line in lines:
        name, _, rest = line.partition(":")
        columns = [int(column) for column in rest.split()]
        if name.strip() != "lo":
            counters = {counter: columns[column] for counter, column in zip(_COUNTERS, _COLUMNS, strict=True)}
            result.append(pb.NetworkStats(name=name.strip(), **counters))
    return result
