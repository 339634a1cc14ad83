"""The conversions from the specification's units to cgroup v2's files, by table."""

from typing import Any

import pytest

from agent.container.cgroup.plan import cpu_weight, io_weight, writes
from agent.container.cgroup.stats import IoStats, flat, read_stats
from agent.container.spec.document import parse_resources


def files(resources: dict[str, Any]) -> list[tuple[str, str]]:
    return [(write.file, write.value) for write in writes(parse_resources(resources))]


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(2, 1), (1, 1), (1024, 100), (22000, 1204), (262144, 10000), (1 << 40, 10000), (512, 59), (2048, 174), (3, 2)],
)
def test_cpu_weight(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize(("weight", "value"), [(10, 1), (500, 4950), (1000, 10000), (100, 910)])
def test_io_weight(weight: int, value: int) -> None:
    assert io_weight(weight) == value


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, []),
        ({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0}}, []),
        ({"memory": {"limit": 1000}}, [("memory.max", "1000")]),
        ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"memory": {"limit": 1000, "swap": 1000}}, [("memory.swap.max", "0"), ("memory.max", "1000")]),
        ({"memory": {"limit": 1000, "swap": 3000}}, [("memory.swap.max", "2000"), ("memory.max", "1000")]),
        ({"memory": {"limit": 1000, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", "1000")]),
        ({"memory": {"reservation": 500}}, [("memory.low", "500")]),
        ({"cpu": {"quota": 50000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": 50000, "period": 20000}}, [("cpu.max", "50000 20000")]),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000")]),
        ({"cpu": {"period": 5000}}, [("cpu.max", "max 5000")]),
        ({"cpu": {"quota": 10000, "burst": 2000}}, [("cpu.max.burst", "2000"), ("cpu.max", "10000 100000")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "100")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"shares": 1024, "idle": 0}}, [("cpu.idle", "0"), ("cpu.weight", "100")]),
        ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": 5}}, [("pids.max", "5")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")]),
        ({"pids": {}}, []),
        ({"blockIO": {"weight": 500}}, [("io.bfq.weight", "default 500")]),
        ({"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 10}]}}, [("io.bfq.weight", "8:16 10")]),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 5}, {"major": 9, "minor": 1, "rate": 7}],
                }
            },
            [("io.max", "8:0 rbps=1000 wiops=5"), ("io.max", "9:1 wiops=7")],
        ),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}, [("hugetlb.2MB.max", "4096"), ("hugetlb.2MB.rsvd.max", "4096")]),
        ({"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 4}}}, [("rdma.max", "mlx5_0 hca_handle=3 hca_object=4")]),
        ({"memory": {"limit": 9}, "unified": {"memory.high": "5"}}, [("memory.max", "9"), ("memory.high", "5")]),
        ({"unified": {"io.max": "8:0 rbps=1\n9:0 wbps=2"}}, [("io.max", "8:0 rbps=1"), ("io.max", "9:0 wbps=2")]),
    ],
)
def test_files(resources: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert files(resources) == expected


def test_a_weight_without_the_scheduler_that_has_weights() -> None:
    for weight, line in (({"weight": 500}, "default 4950"), ({"weightDevice": [{"major": 8, "minor": 16, "weight": 10}]}, "8:16 1")):
        (write,) = writes(parse_resources({"blockIO": weight}))
        assert write.fallback is not None
        assert (write.fallback.file, write.fallback.value) == ("io.weight", line)


def test_a_plan_describes_itself() -> None:
    (write,) = writes(parse_resources({"pids": {"limit": 5}}))
    assert write.describe() == "write '5' to pids.max (linux.resources.pids.limit)"
    assert write.controller == "pids"


def test_swap_off_is_fine_without_swap_accounting() -> None:
    swap, _ = writes(parse_resources({"memory": {"limit": 10, "swap": 10}}))
    assert swap.optional
    swap, _ = writes(parse_resources({"memory": {"limit": 10, "swap": 20}}))
    assert not swap.optional


def test_stats_of_a_groups_files() -> None:
    texts = {
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nmax 6\noom 1\noom_kill 2\n",
        "memory.stat": "anon 10\nfile 20\n",
        "pids.current": "3\n",
        "pids.max": "100\n",
        "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n",
        "hugetlb.2MB.current": "2097152\n",
        "hugetlb.2MB.events": "max 5\n",
    }
    stats = read_stats(lambda name: texts.get(name, ""), list(texts))
    assert (stats.cpu_usage_usec, stats.cpu_throttled_periods, stats.memory_current, stats.memory_limit) == (30, 3, 4096, 0)
    assert (stats.memory_limit_hits, stats.memory_oom_kills, stats.memory_stat) == (6, 2, {"anon": 10, "file": 20})
    assert (stats.pids_current, stats.pids_limit, stats.swap_current) == (3, 100, 0)
    assert stats.io == (IoStats(8, 0, {"rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4}),)
    assert stats.hugetlb == {"2MB": (2097152, 5)}


def test_oom_kills() -> None:
    assert flat("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")["oom_kill"] == 2
    assert flat("") == {}
