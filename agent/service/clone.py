"""Handlers of the calls around a template: load everything before the guest is saved, and make a
clone one of its own after it was loaded.

A clone begins with the memory of its template: the same state of the random generator, the same
clock, the same hardware address. `resume_clone` changes what would make two clones twins.
docs/templates.md has the whole contract.
"""

import _socket as socket  # as agent/linux/loopback.py
import fcntl
import gc
import os
import struct
import sys
import time
from typing import TYPE_CHECKING

from agent import log
from agent.errors import Refused, WrongState
from agent.event_log import RESUMED
from agent.linux.heap import wipe_free_blocks
from agent.loop import current_task, spawn
from agent.network.link import check_hardware_address, check_name
from agent.service.guest import add_entropy
from agent.service.wipe import wipe_guest
from innkeeper.wire.pb.empty_pb2 import Empty
from innkeeper.wire.pb.guest_pb2 import ResumeCloneResponse

if TYPE_CHECKING:
    from agent.loop import Task
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import guest_pb2

LATE_MODULES = (
    "agent.container.features",
    "agent.device.lookup",
    "agent.network.dns",
    "agent.network.interface",
    "agent.network.neighbour",
    "agent.network.route",
    "agent.pod.cdi",
    "agent.pod.devices",
    "agent.pod.hooks",
    "agent.pod.users",
    "agent.service.malloc_trim",
    "agent.service.hotplug",
    "agent.service.metrics",
    "agent.service.stats",
    "agent.service.volumes",
    "agent.storage.copyfile",
    "agent.storage.disk",
    "agent.storage.ephemeral",
    "agent.storage.fs_group",
    "agent.storage.overlayfs",
    "agent.storage.share",
    "json",
)
"""Modules that the calls of an ordinary container import when they need them."""
SIOCSIFHWADDR = 0x8924
ARPHRD_ETHER = 1
ENTROPY_MIN = 32
"""Bytes that two clones have to differ in: the size of the generator's key."""
GENERATION = "/run/innkeeper/generation"
"""The file with the number of this clone."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
"""Read in a clone only: the kernel makes the id when it is read for the first time."""


async def prepare_template(sandbox: "Sandbox", request: "guest_pb2.PrepareTemplateRequest") -> Empty:
    """Import what is imported late, write cached data to disk, and wipe memory that is not in use.

    Raises WrongState if there is a sandbox or a container, and StepFailed.
    """
    if sandbox.id or sandbox.containers.by_id:
        raise WrongState("a guest with a sandbox or a container is no template")
    wipe_free_blocks()  # first: what lasts may not fill the block that it gets
    for name in LATE_MODULES:
        __import__(name)
    from agent.container.seccomp import library  # late, too

    library()
    os.sync()
    if request.used_blocks:
        await wipe_guest(request.used_blocks)
        spawn(_wipe_after(current_task()), name="wipe")
    gc.freeze()
    return Empty()


async def _wipe_after(call: "Task[object]") -> None:
    """Wipe this process once more when the call is over.

    Its request is in a block that held another one before, and does not fill it.
    """
    await call.wait()
    wipe_free_blocks()


async def resume_clone(sandbox: "Sandbox", request: "guest_pb2.ResumeCloneRequest") -> ResumeCloneResponse:
    """Make the guest differ from all other clones. Raises Refused and OSError.

    The entropy comes first: the boot id and everything later depends on it.
    """
    if len(request.entropy) < ENTROPY_MIN:
        raise Refused("entropy", f"{len(request.entropy)} bytes are too few to tell clones apart, {ENTROPY_MIN} are needed")
    if request.generation <= _generation():
        raise Refused("generation", f"{request.generation} is not above {_generation()}, which this guest has")
    for address in request.hardware_addresses:
        check_name("hardware_addresses.device", address.device)
        check_hardware_address("hardware_addresses.address", address.address)
    add_entropy(request.entropy)
    if (random := sys.modules.get("random")) is not None:
        random.seed()  # from the kernel's generator
    time.clock_settime_ns(time.CLOCK_REALTIME, request.realtime_ns)
    for wanted in request.hardware_addresses:
        _set_hardware_address(wanted.device, wanted.address)
    _write_generation(request.generation)
    with open(BOOT_ID, encoding="ascii") as file:
        boot_id = file.read().strip()
    sandbox.events.publish(RESUMED, "", generation=request.generation)
    log.info("resumed as a clone", generation=request.generation)
    return ResumeCloneResponse(generation=_generation(), realtime_ns=time.time_ns(), boot_id=boot_id)


def _set_hardware_address(device: str, address: str) -> None:
    """Change the address of an interface, which may be up (netdevice(7)). Raises OSError.

    The ioctl takes a tenth of the time of netlink's messages, in the first moments of a clone.
    """
    hardware = bytes(int(part, 16) for part in address.split(":"))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        fcntl.ioctl(sock.fileno(), SIOCSIFHWADDR, struct.pack("16sH6s16x", device.encode(), ARPHRD_ETHER, hardware))
    except OSError as error:
        raise OSError(error.errno, error.strerror, device) from None
    finally:
        sock.close()


def _generation() -> int:
    """Return the number of this clone, or 0 in a guest that booted."""
    try:
        with open(GENERATION, encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _write_generation(number: int) -> None:
    os.makedirs(os.path.dirname(GENERATION), exist_ok=True)
    with open(f"{GENERATION}.new", "w", encoding="ascii") as file:
        file.write(f"{number}\n")
    os.rename(f"{GENERATION}.new", GENERATION)


METHODS: "Handlers" = {"PrepareTemplate": prepare_template, "ResumeClone": resume_clone}
"""Methods of innkeeper.v1.Guest."""
