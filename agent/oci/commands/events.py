"""`events`: statistics of a container at intervals, and its OOM kills, one JSON object per line."""

import sys
from contextlib import suppress
from typing import Any

from agent import loop
from agent.container.cgroup.stats import ContainerStats
from agent.container.lifecycle import Status
from agent.errors import WrongState
from agent.oci.arguments import Option, Parsed, UsageError
from agent.oci.command_table import Command, Context
from agent.oci.load_container import load_container
from agent.oci.output import compact
from agent.oci.state_dir import StateDir

LAST_SECONDS = 1.0
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def events(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    With --stats it prints one line, else lines until the container ends.
    """
    interval = seconds(parsed.text("interval", "5s"))

    async def main() -> None:
        with StateDir.open(context.root, parsed.arguments[0]) as state_dir:
            observed = state_dir.observe()
            if observed.status in (Status.STOPPED, Status.CREATING):
                raise WrongState(f"container {state_dir.id!r} is {observed.status.value}: container not running")
            container = load_container(state_dir, observed)
            if parsed.switch("stats"):
                _print("stats", state_dir.id, statistics(container.stats()))
                return
            memory = loop.spawn(container.watch_oom(lambda kills: _out_of_memory(state_dir.id, kills)), name="memory")
            ended = loop.spawn(container.init.wait(), name="end")
            while not ended.done:
                _print("stats", state_dir.id, statistics(container.stats()))
                try:
                    with loop.timeout(interval):
                        await ended.wait()
                except TimeoutError:
                    continue
            with suppress(TimeoutError), loop.timeout(LAST_SECONDS):
                # The OOM kill that ended the container is printed too. The timeout is for processes
                # that outlive the first one.
                await memory.wait()

    loop.run(main())
    return 0


def _out_of_memory(id: str, kills: int) -> None:
    """Print one line for each process that the kernel has killed out of memory since the start."""
    for _ in range(kills):
        _print("oom", id, None)


def _print(kind: str, id: str, data: object) -> None:
    print(compact({"type": kind, "id": id, **({} if data is None else {"data": data})}))
    sys.stdout.flush()


def seconds(word: str) -> float:
    """Return the seconds of a duration like `5s`, `500ms`, `1m`. Raises UsageError."""
    value = word.rstrip("msh")
    unit = word[len(value) :]
    try:
        result = float(value) * UNITS[unit or "s"]
    except (KeyError, ValueError):
        result = 0.0
    if not 0 < result < 1e9:
        raise UsageError(f"--interval: {word!r} is not a duration like 5s")
    return result


def statistics(stats: ContainerStats) -> dict[str, Any]:
    """Return the statistics in runc's format: nanoseconds and bytes."""
    return {
        "cpu": {
            "usage": {"total": stats.cpu_usage_usec * 1000, "kernel": stats.cpu_system_usec * 1000, "user": stats.cpu_user_usec * 1000},
            "throttling": {
                "periods": stats.cpu_periods,
                "throttledPeriods": stats.cpu_throttled_periods,
                "throttledTime": stats.cpu_throttled_usec * 1000,
            },
        },
        "memory": {
            "usage": {
                "limit": stats.memory_limit,
                "usage": stats.memory_current,
                "max": stats.memory_peak,
                "failcnt": stats.memory_limit_hits,
            },
            "swap": {"limit": stats.swap_limit, "usage": stats.swap_current, "failcnt": 0},
            "raw": stats.memory_stat,
        },
        "pids": {"current": stats.pids_current, "limit": stats.pids_limit},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": device.major, "minor": device.minor, "op": operation, "value": device.values.get(key, 0)}
                for device in stats.io
                for operation, key in (("Read", "rbytes"), ("Write", "wbytes"))
            ]
        },
        "hugetlb": {size: {"usage": usage, "failcnt": hits} for size, (usage, hits) in stats.hugetlb.items()},
    }


OPTIONS = (Option("stats", "the statistics once"), Option("interval", "time between statistics (5s)", "TIME"))
COMMANDS = (Command("events", "print a container's statistics and events as JSON", events, options=OPTIONS),)
