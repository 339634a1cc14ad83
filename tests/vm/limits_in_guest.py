"""Limits as the kernel has them, read back inside a container: run in the guest by test_limits_in_guest.py, where v2 has every controller.

The agent of these tests is the source tree, started inside a container of the guest with all rights: the same code, the guest's kernel.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container.container import Container
from agent.container.spec.document import parse_resources
from agent.errors import Refused
from tests.root.container_helpers import Box, Document, execute, finish

MIB = 1 << 20


def limited(box: Box, resources: Document, *args: str) -> Document:
    doc = box.document(*args)
    doc["linux"]["resources"] = resources
    return doc


def block_device() -> tuple[str, int, int]:
    """(name, major, minor) of a disk of the guest."""
    for line in Path("/proc/partitions").read_text().splitlines()[2:]:
        major, minor, _size, name = line.split()
        if name.startswith("vd") and os.path.isdir(f"/sys/block/{name}"):
            return name, int(major), int(minor)
    raise FileNotFoundError("no virtio disk")


@pytest.mark.parametrize(
    ("resources", "file", "value"),
    [
        ({"cpu": {"shares": 1024}}, "cpu.weight", "100"),
        ({"cpu": {"shares": 262144}}, "cpu.weight", "10000"),
        ({"cpu": {"quota": 50000, "period": 20000}}, "cpu.max", "50000 20000"),
        ({"cpu": {"quota": -1}}, "cpu.max", "max 100000"),
        ({"cpu": {"quota": 10000, "burst": 2000}}, "cpu.max.burst", "2000"),
        ({"cpu": {"idle": 1}}, "cpu.idle", "1"),
        ({"cpu": {"cpus": "0"}}, "cpuset.cpus.effective", "0"),
        ({"cpu": {"mems": "0"}}, "cpuset.mems", "0"),
        ({"memory": {"limit": 64 * MIB}}, "memory.max", str(64 * MIB)),
        ({"memory": {"limit": -1}}, "memory.max", "max"),
        ({"memory": {"limit": 64 * MIB, "swap": 96 * MIB}}, "memory.swap.max", str(32 * MIB)),
        ({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}, "memory.swap.max", "0"),
        ({"memory": {"reservation": 16 * MIB}}, "memory.low", str(16 * MIB)),
        ({"pids": {"limit": 77}}, "pids.max", "77"),
        ({"pids": {"limit": -1}}, "pids.max", "max"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "hugetlb.2MB.max", str(4 * MIB)),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}, "hugetlb.2MB.rsvd.max", str(4 * MIB)),
        ({"unified": {"memory.high": str(32 * MIB), "cpu.weight": "5"}}, "memory.high", str(32 * MIB)),
        ({"cpu": {"shares": 1024}, "unified": {"cpu.weight": "5"}}, "cpu.weight", "5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_limit(box: Box, resources: Document, file: str, value: str) -> None:
    assert box.run(limited(box, resources, "cat", f"/sys/fs/cgroup/{file}")).stdout.strip() == value


def test_weights_of_block_devices(box: Box) -> None:
    name, major, minor = block_device()
    Path(f"/sys/block/{name}/queue/scheduler").write_text("bfq")
    resources = {"blockIO": {"weight": 500, "weightDevice": [{"major": major, "minor": minor, "weight": 20}]}}
    lines = box.run(limited(box, resources, "cat", "/sys/fs/cgroup/io.bfq.weight")).stdout.splitlines()
    assert sorted(lines) == sorted(["default 500", f"{major}:{minor} 20"])


def test_throttles_of_block_devices(box: Box) -> None:
    _name, major, minor = block_device()
    words = {"ReadBps": 1 << 20, "WriteBps": 2 << 20, "ReadIOPS": 30, "WriteIOPS": 40}
    resources = {"blockIO": {f"throttle{word}Device": [{"major": major, "minor": minor, "rate": rate}] for word, rate in words.items()}}
    line = box.run(limited(box, resources, "cat", "/sys/fs/cgroup/io.max")).stdout
    assert line.split() == [f"{major}:{minor}", "rbps=1048576", "wbps=2097152", "riops=30", "wiops=40"]


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"rdma": {"mlx5_0": {"hcaHandles": 3}}}, "linux.resources.rdma.mlx5_0"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}, "linux.resources.hugepageLimits[3MB]"),
        ({"unified": {"memory.no_such_file": "1"}}, "linux.resources.unified.memory.no_such_file"),
        ({"unified": {"memory.high": "much"}}, "linux.resources.unified.memory.high"),
        ({"cpu": {"cpus": "700"}}, "linux.resources.cpu.cpus"),
        ({"cpu": {"period": 1}}, "linux.resources.cpu.quota"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_kernel_does_not_take_is_refused(box: Box, resources: Document, field: str) -> None:
    with pytest.raises(Refused) as caught:
        box.run(limited(box, resources, "true"))
    assert caught.value.field == field


def test_an_update_and_one_that_fails(box: Box) -> None:
    async def use(container: Container) -> list[str]:
        seen = []
        for resources in (
            {"pids": {"limit": 50}, "memory": {"limit": 128 * MIB}},
            {"pids": {"limit": 60}, "unified": {"memory.high": "much"}},
            {"memory": {"limit": 1, "checkBeforeUpdate": True}},
        ):
            try:
                await container.update(parse_resources(resources))
            except Refused as refused:
                seen.append(refused.field)
            result = await execute(container, "cat", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/memory.max")
            seen.append(" ".join(result.stdout.split()))
            container.processes.pop("e1").close()
        return seen

    seen = box.during(limited(box, {"pids": {"limit": 40}}, "sleep", "100"), use)
    after = f"50 {128 * MIB}"
    assert seen == [after, "linux.resources.unified.memory.high", after, "linux.resources.memory.limit", after]


def test_memory_over_the_limit_ends_the_program_and_is_told(box: Box) -> None:
    # In one piece: what grows bit by bit is held up for minutes by reading its own program from the disk again and again.
    doc = limited(box, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")

    async def use(container: Container) -> Any:
        told: list[int] = []
        watch = loop.spawn(container.watch_oom(told.append), name="oom")
        container.init.stdio.close_stdin()
        await finish(container.init)
        await watch.wait()
        return told, container.stats().memory_oom_kills

    told, kills = box.during(doc, use)
    assert kills >= 1
    assert sum(told) == kills


def test_a_fork_bomb_is_held(box: Box) -> None:
    doc = limited(box, {"pids": {"limit": 20}}, "sh", "-c", "(while :; do sleep 100 & done); exec sleep 100")

    async def use(container: Container) -> int:
        with loop.timeout(60):
            while len(container.pids()) < 19:
                await loop.sleep(0.05)
        await loop.sleep(0.5)
        return container.stats().pids_current

    assert box.during(doc, use) in (19, 20)


def test_less_than_the_agents_own_oom_score(box: Box) -> None:
    """Needs CAP_SYS_RESOURCE, as raising a limit does."""
    doc = box.document("sh", "-c", "cat /proc/self/oom_score_adj; ulimit -Hn")
    doc["process"]["oomScoreAdj"] = -500
    doc["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 2_000_000, "hard": 2_000_000}]
    doc["linux"]["sysctl"] = {}
    Path("/proc/sys/fs/nr_open").write_text("3000000")
    assert box.run(doc).stdout.split() == ["-500", "2000000"]


@pytest.mark.parametrize(
    ("scheduler", "policy", "priority"),
    [
        ({"policy": "SCHED_FIFO", "priority": 7}, "1", "7"),
        ({"policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, "2", "3"),
        ({"policy": "SCHED_IDLE"}, "5", "0"),
        ({"policy": "SCHED_OTHER", "nice": -5}, "0", "0"),
        ({"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 10**8, "period": 10**8}, "6", "0"),
    ],
    ids=["fifo", "rr", "idle", "other", "deadline"],
)
def test_schedulers(box: Box, scheduler: Document, policy: str, priority: str) -> None:
    doc = box.document("sh", "-c", "cut -d' ' -f19,40,41 /proc/self/stat")
    doc["process"]["args"] = ["cut", "-d ", "-f19,40,41", "/proc/self/stat"]
    doc["process"]["scheduler"] = scheduler
    nice, found_priority, found_policy = box.run(doc).stdout.split()
    assert (found_policy, found_priority, nice) == (policy, priority, str(scheduler.get("nice", 0)))
