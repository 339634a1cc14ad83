"""The scheduling of `process`: scheduler, I/O priority, CPU affinity.

`reader` is `process` in each function.
"""

from dataclasses import dataclass

from agent.container.spec.reader import U64, SpecReader, choice, number
from agent.errors import Refused

POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1,
    "SCHED_FLAG_RECLAIM": 2,
    "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """Arguments of sched_setattr(2). Times are in nanoseconds."""

    policy: int
    flags: int
    nice: int
    priority: int
    runtime: int
    deadline: int
    period: int


def parse_scheduler(reader: SpecReader) -> Scheduler | None:
    """Return `process.scheduler`, or None if it is absent. Raises Refused."""
    scheduler = reader.child("scheduler")
    if scheduler is None:
        return None
    policy = choice(scheduler.string("policy"), scheduler.name("policy"), POLICIES)
    flags = 0
    for index, name in enumerate(scheduler.strings("flags")):
        flags |= choice(name, scheduler.name(f"flags[{index}]"), SCHED_FLAGS)
    result = Scheduler(
        policy=policy,
        flags=flags,
        nice=scheduler.integer("nice", -20, 19, 0),
        priority=scheduler.integer("priority", 0, 99, 0),
        runtime=scheduler.integer("runtime", 0, U64, 0),
        deadline=scheduler.integer("deadline", 0, U64, 0),
        period=scheduler.integer("period", 0, U64, 0),
    )
    scheduler.finish()
    _check_scheduler(scheduler, result)
    return result


def _check_scheduler(reader: SpecReader, scheduler: Scheduler) -> None:
    """Raise Refused for a value that the policy would ignore."""
    if scheduler.nice and scheduler.policy not in (POLICIES["SCHED_OTHER"], POLICIES["SCHED_BATCH"]):
        raise Refused(reader.name("nice"), "only with SCHED_OTHER and SCHED_BATCH")
    realtime = scheduler.policy in (POLICIES["SCHED_FIFO"], POLICIES["SCHED_RR"])
    if bool(scheduler.priority) != realtime:
        raise Refused(reader.name("priority"), "1 to 99 with SCHED_FIFO and SCHED_RR, else 0")
    times = (scheduler.runtime, scheduler.deadline, scheduler.period)
    if scheduler.policy == POLICIES["SCHED_DEADLINE"]:
        if not 1000 <= scheduler.runtime <= scheduler.deadline <= (scheduler.period or scheduler.deadline):
            raise Refused(reader.name("runtime"), "must hold 1000 <= runtime <= deadline <= period")
    elif any(times):
        raise Refused(reader.name("runtime"), "runtime, deadline and period only with SCHED_DEADLINE")


def parse_io_priority(reader: SpecReader) -> int | None:
    """Return `process.ioPriority` as ioprio_set(2) takes it, or None if it is absent.

    Raises Refused.
    """
    priority = reader.child("ioPriority")
    if priority is None:
        return None
    kind = choice(priority.string("class"), priority.name("class"), IO_CLASSES)
    value = kind << 13 | priority.integer("priority", 0, 7, 0)
    priority.finish()
    return value


def parse_cpu_affinity(reader: SpecReader) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return `process.execCPUAffinity` as (initial, final), or None if it is absent.

    Raises Refused.
    """
    affinity = reader.child("execCPUAffinity")
    if affinity is None:
        return None
    initial = cpu_list(affinity.string("initial"), affinity.name("initial"))
    final = cpu_list(affinity.string("final"), affinity.name("final"))
    affinity.finish()
    return initial, final


def cpu_list(value: str, path: str) -> tuple[int, ...]:
    """Return the numbers of a list in the kernel's format (`0-3,7`). Raises Refused."""
    cpus: list[int] = []
    for part in value.split(",") if value else ():
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise Refused(path, f"{value[:64]!r} is not a list like 0-3,7")
        first = number(int(low), path, 0, 1 << 16)
        last = number(int(high), path, first, 1 << 16) if dash else first
        cpus.extend(range(first, last + 1))
    return tuple(cpus)
