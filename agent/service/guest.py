"""Handlers of the calls about the guest itself: details, clock, entropy."""

import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING

from agent import KATA_AGENT_VERSION
from agent.errors import Refused
from innkeeper.wire.pb.agent_pb2 import AgentDetails, GuestDetailsResponse
from innkeeper.wire.pb.empty_pb2 import Empty
from innkeeper.wire.pb.guest_pb2 import ClockResponse

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2

RNDADDTOENTCNT = 0x40045201
RNDRESEEDCRNG = 0x5207
MEMORY = "/sys/devices/system/memory"
LATEST = (1 << 63) // 1_000_000_000 - 1
"""The latest time that can be set, in seconds since the epoch.

The kernel counts nanoseconds in 63 bits.
"""


async def get_guest_details(sandbox: "Sandbox", request: "agent_pb2.GuestDetailsRequest") -> GuestDetailsResponse:
    """Return the version and the features of the agent, and how memory is added to the guest.

    The size of a memory block and the support for probing are returned if they are asked for.
    """
    from agent.storage.manager import DRIVERS

    details = AgentDetails(
        version=KATA_AGENT_VERSION,
        init_daemon=os.getpid() == 1,
        storage_handlers=sorted(DRIVERS),
        supports_seccomp=True,
        extra_features=["seccomp"],
    )
    response = GuestDetailsResponse(agent_details=details)
    if request.mem_block_size:
        response.mem_block_size_bytes = int(_read(f"{MEMORY}/block_size_bytes") or "0", 16)
    if request.mem_hotplug_probe:
        response.support_mem_hotplug_probe = os.path.exists(f"{MEMORY}/probe")
    return response


async def set_guest_date_time(sandbox: "Sandbox", request: "agent_pb2.SetGuestDateTimeRequest") -> Empty:
    """Set the clock of the guest. Raises Refused or OSError."""
    if not 0 <= request.Sec <= LATEST:
        raise Refused("Sec", f"{request.Sec} is no time that the kernel knows")
    if not 0 <= request.Usec < 1_000_000:
        raise Refused("Usec", f"{request.Usec} is not below a second")
    time.clock_settime_ns(time.CLOCK_REALTIME, request.Sec * 1_000_000_000 + request.Usec * 1000)
    return Empty()


async def get_clock(sandbox: "Sandbox", request: Empty) -> ClockResponse:
    """Return the clock of the guest in nanoseconds since the epoch."""
    return ClockResponse(realtime_ns=time.time_ns())


async def reseed_random_dev(sandbox: "Sandbox", request: "agent_pb2.ReseedRandomDevRequest") -> Empty:
    """Add the bytes to the kernel's entropy pool and credit them."""
    add_entropy(request.data)
    return Empty()


def add_entropy(data: bytes) -> None:
    """Add the bytes to the kernel's entropy pool and credit them (random(4)). Raises OSError.

    The generator is reseeded afterwards, so it uses them at once.
    """
    with open("/dev/random", "wb", buffering=0) as device:
        device.write(data)
        fcntl.ioctl(device.fileno(), RNDADDTOENTCNT, struct.pack("i", len(data) * 8))
        fcntl.ioctl(device.fileno(), RNDRESEEDCRNG)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


OWN_METHODS: "Handlers" = {"GetClock": get_clock}
"""Methods of innkeeper.v1.Guest."""

METHODS: "Handlers" = {
    "GetGuestDetails": get_guest_details,
    "SetGuestDateTime": set_guest_date_time,
    "ReseedRandomDev": reseed_random_dev,
}
