"""The agent's figures as containerd reads them."""

from innkeeper.shim import stats
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.wire.pb import agent_pb2


def test_figures() -> None:
    response = agent_pb2.StatsContainerResponse()
    group = response.cgroup_stats
    group.cpu_stats.cpu_usage.total_usage = 5_000_999
    group.memory_stats.usage.usage, group.memory_stats.usage.limit = 100, 200
    group.memory_stats.stats.update({"inactive_file": 10, "oom_kill": 1})
    group.pids_stats.current = 3
    row = {"major": 254, "minor": 16}
    for op, size, count in (("Read", 4096, 1), ("Write", 8192, 2), ("discard", 7, 7)):
        group.blkio_stats.io_service_bytes_recursive.add(op=op, value=size, **row)
        group.blkio_stats.io_serviced_recursive.add(op=op, value=count, **row)
    packed = stats.packed(stats.metrics(response))
    assert packed.type_url == "io.containerd.cgroups.v2.Metrics"
    found = pb.Metrics.FromString(packed.value)
    assert found.memory_events.oom_kill == 1
    assert (found.cpu.usage_usec, found.pids.current) == (5000, 3)
    assert (found.memory.usage, found.memory.usage_limit, found.memory.inactive_file, found.memory.anon) == (100, 200, 10, 0)
    assert list(found.io.usage) == [pb.IOEntry(major=254, minor=16, rbytes=4096, wbytes=8192, rios=1, wios=2)]


def test_without_a_disk_there_is_an_empty_message() -> None:
    """nerdctl reads it without a look whether it is there."""
    assert stats.metrics(agent_pb2.StatsContainerResponse()).HasField("io")
