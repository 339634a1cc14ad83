"""Handlers of the calls about CPUs, memory and swap that the host has added to a running guest."""

import os
import time
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

from agent.device.lookup import named_block, virtio_block
from agent.errors import AgentError, Refused, WrongState
from agent.worker import run_in_worker
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2

CPUS = "/sys/devices/system/cpu"
MEMORY = "/sys/devices/system/memory"
ONLINE_TRIES = 100
"""Number of attempts, ONLINE_PAUSE apart, until the CPUs have to be there."""
ONLINE_PAUSE = 0.05
"""Seconds between two attempts."""
CPUS_MAX = 8192
"""Limit of Linux for x86-64 (NR_CPUS)."""


async def online_cpu_mem(sandbox: "Sandbox", request: "agent_pb2.OnlineCPUMemRequest") -> Empty:
    """Bring CPUs online until `nb_cpus` are, and then all memory unless `cpu_only` is set.

    Containers use them at once: with cgroup v2, a cgroup without a list of its own has all CPUs of
    the guest. Raises Refused, or StepFailed if the CPUs do not appear.
    """
    if request.nb_cpus > CPUS_MAX:
        raise Refused("nb_cpus", f"{request.nb_cpus} is more than a kernel can have")

    def work() -> None:
        if request.nb_cpus:
            _online_cpus(request.nb_cpus)
        if not request.cpu_only:
            _online_memory()

    await run_in_worker(work, "online")
    return Empty()


def _online_cpus(wanted: int) -> None:
    """Bring CPUs online until there are `wanted`. Raises AgentError after ONLINE_TRIES.

    Runs in a worker, because the CPUs appear one by one after the host has plugged them.
    """
    online = 0
    for _ in range(ONLINE_TRIES):
        online = _online(f"{CPUS}/{name}/online" for name in os.listdir(CPUS) if name.startswith("cpu") and name[3:].isdecimal())
        if online >= wanted:
            return
        time.sleep(ONLINE_PAUSE)
    raise AgentError(f"failed to online {wanted} CPU(s): {online} are")


def _online_memory() -> None:
    """Bring all memory blocks online. Does nothing if the kernel has no memory hotplug."""
    if os.path.isdir(MEMORY):
        _online(f"{MEMORY}/{name}/online" for name in sorted(os.listdir(MEMORY)) if name[:6] == "memory" and name[6:].isdecimal())


def _online(switches: Iterable[str]) -> int:
    """Bring online what is offline, and return how many are online.

    The first CPU has no `online` file and always counts. An entry that has just disappeared is
    skipped.
    """
    on = 0
    for path in switches:
        try:
            with open(path, encoding="ascii") as file:
                off = file.read().strip() == "0"
            if off:
                with open(path, "w", encoding="ascii") as file:
                    file.write("1")
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(path)):
                continue
        on += 1
    return on


async def mem_hotplug_by_probe(sandbox: "Sandbox", request: "agent_pb2.MemHotplugByProbeRequest") -> Empty:
    """Write the addresses of new memory to the kernel's `probe` file.

    A kernel needs this if no firmware reports new memory to it (arm64). Raises WrongState if this
    kernel has no such file.
    """
    probe = f"{MEMORY}/probe"
    if not os.path.exists(probe):
        raise WrongState(f"this kernel has no {probe}: it learns of memory by itself")

    def work() -> None:
        for address in request.memHotplugProbeAddr:
            with open(probe, "w", encoding="ascii") as file:
                file.write(f"{address:#x}")

    await run_in_worker(work, "memory probe")
    return Empty()


async def add_swap(sandbox: "Sandbox", request: "agent_pb2.AddSwapRequest") -> Empty:
    """Swap on a virtio disk, which the slots of its PCI path name.

    Raises Refused, or AgentError if the disk does not appear in time.
    """
    if not request.PCIPath:
        raise Refused("PCIPath", "is empty")
    path = "/".join(f"{slot:02x}" for slot in request.PCIPath)
    await sandbox.add_swap(await _appeared(virtio_block(sandbox.devices, path, "PCIPath")))
    return Empty()


async def add_swap_path(sandbox: "Sandbox", request: "agent_pb2.AddSwapPathRequest") -> Empty:
    """Swap on the disk that the path of its device node names.

    Raises Refused, or AgentError if the disk does not appear in time.
    """
    await sandbox.add_swap(await _appeared(named_block(sandbox.devices, request.path, "path")))
    return Empty()


async def _appeared(node: Awaitable[str]) -> str:
    """Wait for a device node. Raises AgentError if it does not appear in time."""
    try:
        return await node
    except TimeoutError as error:
        raise AgentError(str(error)) from None


METHODS: "Handlers" = {
    "OnlineCPUMem": online_cpu_mem,
    "MemHotplugByProbe": mem_hotplug_by_probe,
    "AddSwap": add_swap,
    "AddSwapPath": add_swap_path,
}
