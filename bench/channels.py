"""virtio-serial beside vsock: what carries the guest's ports, measured by turns.

Two guests run at the same time, each with one of the two. Without vhost-vsock of the host's kernel,
vsock is that of vhost-device-vsock.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.calls import bare_round_trips
from bench.figures import Section, figure, throughput
from bench.guest import HOLDER, holding
from bench.interleave import shuffled
from innkeeper.engine.host import prepare, virtual_machine
from innkeeper.guest import Artifacts
from innkeeper.image import Image
from innkeeper.vm import VirtualMachine, VmConfig
from innkeeper.vm.virtio_serial import VirtioSerial
from innkeeper.vm.vsock import Backend, kernel_works

TRIPS = 200
TURNS = 10
"""Turns in which the round trips are measured: `TRIPS` divided by this in each."""
STREAMS = 3


def section(artifacts: Artifacts, image: Image, folder: Path, megabytes: int, accel: str | None) -> Section:
    """Return the section of round trips and streams over both channels."""
    vsock_by = "vhost-vsock" if kernel_works() else "vhost-device-vsock"
    size = megabytes << 20
    with ExitStack() as stack:
        guests = {
            name: stack.enter_context(holding(artifacts, image, folder / name, accel, make))
            for name, make in (("virtio-serial", _by_virtio_serial), (vsock_by, partial(virtual_machine, vsock=True)))
        }
        trips = shuffled({name: partial(bare_round_trips, guest.address, TRIPS // TURNS) for name, guest in guests.items()}, TURNS)
        out = shuffled({name: partial(guest.containers.stdout, HOLDER, size) for name, guest in guests.items()}, STREAMS)
        into = shuffled({name: partial(guest.containers.stdin, HOLDER, size) for name, guest in guests.items()}, STREAMS)
    result = Section("the channel to the guest", note=f"by turns, {megabytes} MiB a stream")
    for name in guests:
        result.figures.append(figure(f"{name}: round trip of Check", "us", [trip * 1e6 for turn in trips[name] for trip in turn]))
    for title, rates in (("standard output", out), ("standard input", into)):
        result.figures += [throughput(f"{name}: {title}", rates[name]) for name in guests]
    return result


class _OverVirtioSerial(VirtualMachine):
    """A VM that uses virtio-serial even if the kernel's vsock works."""

    def _open_channel(self) -> Backend:
        return VirtioSerial(self.folder)


def _by_virtio_serial(config: VmConfig) -> VirtualMachine:
    return _OverVirtioSerial(config, prepare(config.kernel, accelerator=config.accel, shares=False))
