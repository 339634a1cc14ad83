"""The host's memory of idle containers: VMs that have booted, and clones of one template."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from bench.figures import Section, single
from innkeeper.engine import monitor, records, resolve, stop
from innkeeper.engine.records import Container
from innkeeper.engine.resolve import COLD, TEMPLATE, RunRequest
from innkeeper.image import RunOptions
from innkeeper.vm import process_info, registry

CONTAINERS = 10
COMMAND = ["/bin/sleep", "100000"]
SETTLE_SECONDS = 20.0


def section(reference: str, accel: str | None, sleep: Callable[[float], None] = time.sleep) -> Section:
    """Return the section of the containers' memory (Pss of QEMU) in megabytes."""
    result = Section("host memory of idle containers", note=f"{CONTAINERS} at a time, of 2 GiB each; pages that they share count once")
    each = {}
    for start, name in ((COLD, "a VM that booted"), (TEMPLATE, "a clone of one template")):
        with ExitStack() as stack:
            containers = [stack.enter_context(idle(reference, accel, start)) for _ in range(CONTAINERS)]
            sleep(SETTLE_SECONDS)
            each[start] = sum(process_info.memory(container.vm.state["pid"]) for container in containers) / CONTAINERS / 1e6
        result.figures.append(single(name, "MB", each[start], samples=CONTAINERS))
    result.figures.append(single("a clone / a VM that booted", "", each[TEMPLATE] / each[COLD]))
    return result


@contextmanager
def idle(reference: str, accel: str | None, start: str) -> Iterator[Container]:
    """Context manager: run a container that sleeps in the background, and remove it at the end."""
    request = RunRequest(reference=reference, detached=True, accel=accel, start=start)
    container = records.lookup(monitor.start(resolve.resolve_run(request, RunOptions(args=COMMAND))))
    try:
        yield container
    finally:
        remove(container.id)


def remove(id: str) -> None:
    """End a container that runs in the background, and remove its record."""
    container = records.lookup(id)
    stop.end_owner(container)
    registry.remove(container.vm)
