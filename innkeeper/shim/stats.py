"""A container's statistics as a message of containerd: cgroup version 2, microseconds."""

from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.wire.pb import agent_pb2

TYPE_URL = "io.containerd.cgroups.v2.Metrics"
NANOSECONDS = 1000
"""Of a microsecond."""


def metrics(response: agent_pb2.StatsContainerResponse) -> pb.Metrics:
    """Return the statistics for containerd."""
    group = response.cgroup_stats
    usage, throttling, counts = group.cpu_stats.cpu_usage, group.cpu_stats.throttling_data, group.memory_stats.stats
    names = ("anon", "file", "inactive_file", "active_file", "pgfault", "pgmajfault")
    return pb.Metrics(
        pids=pb.PidsStat(current=group.pids_stats.current, limit=group.pids_stats.limit),
        cpu=pb.CPUStat(
            usage_usec=usage.total_usage // NANOSECONDS,
            user_usec=usage.usage_in_usermode // NANOSECONDS,
            system_usec=usage.usage_in_kernelmode // NANOSECONDS,
            nr_periods=throttling.periods,
            nr_throttled=throttling.throttled_periods,
            throttled_usec=throttling.throttled_time // NANOSECONDS,
        ),
        memory=pb.MemoryStat(
            usage=group.memory_stats.usage.usage,
            usage_limit=group.memory_stats.usage.limit,
            **{name: counts[name] for name in names if name in counts},
        ),
        io=_io(group.blkio_stats),
        memory_events=pb.MemoryEvents(oom_kill=oom_kills(response)),
    )


def _io(figures: agent_pb2.BlkioStats) -> pb.IOStat:
    """Return bytes and operations for each block device, as io.stat has them.

    Clients expect the message even if it is empty.
    """
    entries: dict[tuple[int, int], pb.IOEntry] = {}
    for rows, unit in ((figures.io_service_bytes_recursive, "bytes"), (figures.io_serviced_recursive, "ios")):
        for row in rows:
            entry = entries.setdefault((row.major, row.minor), pb.IOEntry(major=row.major, minor=row.minor))
            if prefix := {"read": "r", "write": "w"}.get(row.op.lower()):
                setattr(entry, prefix + unit, row.value)
    return pb.IOStat(usage=entries.values())


def oom_kills(response: agent_pb2.StatsContainerResponse) -> int:
    """Return how many processes of the container the kernel has killed because memory ran out."""
    return int(response.cgroup_stats.memory_stats.stats["oom_kill"])


def packed(message: pb.Metrics) -> pb.Any:
    """Return the statistics as containerd expects them in an answer."""
    return pb.Any(type_url=TYPE_URL, value=message.SerializeToString())
