"""Measure saving and forking a container: seconds, and megabytes on disk and of memory."""

import secrets
import time
from contextlib import ExitStack

from bench import idle
from bench.figures import Section, figure, single
from innkeeper.engine import forks, records, snapshots
from innkeeper.engine.resolve import COLD, TEMPLATE
from innkeeper.vm import process_info

ROUNDS = 3


def section(reference: str, accel: str | None) -> Section:
    """Return the section. A VM that has booted and one from a template are measured by turns."""
    result = Section("snapshots and forks of a container", note=f"2 GiB of memory, {ROUNDS} rounds")
    taken: dict[str, list[float]] = {COLD: [], TEMPLATE: []}
    still: dict[str, list[float]] = {COLD: [], TEMPLATE: []}
    sizes: list[float] = []
    forked: list[float] = []
    memory: list[float] = []
    for _ in range(ROUNDS):
        for start in (COLD, TEMPLATE):
            tag = f"bench-{secrets.token_hex(6)}"
            with ExitStack() as stack:
                original = stack.enter_context(idle.idle(reference, accel, start))
                begun = time.perf_counter()
                made = snapshots.take(original, tag)
                stack.callback(snapshots.remove, tag)
                taken[start].append(time.perf_counter() - begun)
                document = made.document()
                still[start].append(document["frozen_seconds"])
                sizes.append(document["size"] / 1e6)
                begun = time.perf_counter()
                (id,) = forks.start(tag, number=1, name="", ports=(), remove=False)
                stack.callback(idle.remove, id)
                forked.append(time.perf_counter() - begun)
                memory.append(process_info.memory(records.lookup(id).vm.state["pid"]) / 1e6)
    for start, name in ((COLD, "a VM that booted"), (TEMPLATE, "a VM from a template")):
        result.figures.append(figure(f"snapshot, {name}", "s", taken[start]))
        result.figures.append(figure(f"snapshot, {name}: it stands still", "s", still[start]))
    result.figures.append(single("snapshot: on disk", "MB", sum(sizes) / len(sizes), samples=len(sizes)))
    result.figures.append(figure("fork, until it runs", "s", forked))
    result.figures.append(single("fork: memory of QEMU", "MB", sum(memory) / len(memory), samples=len(memory)))
    return result
