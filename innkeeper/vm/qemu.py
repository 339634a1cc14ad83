"""QEMU's argument list, as a pure function of its inputs.

It can be tested and printed without starting anything.
"""

import json
from dataclasses import dataclass, field

from innkeeper.errors import InnkeeperError
from innkeeper.vm import network
from innkeeper.vm.config import Disk, Forward, VmConfig

MMIO_SLOTS = 8
"""The virtio-mmio transports of a microvm (docs/system/i386/microvm.rst)."""

PCI_SLOTS = 30
"""The free slots of q35's root bus.

It has 32, of which the host bridge takes the first and the ISA bridge the last.
"""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Launch:
    """All inputs of the argument list.

    `vsock_chardev` and `vsock_device` are QEMU options from the vsock back end. `share_fds` are the
    connections to virtiofsd, one per share.
    """

    config: VmConfig
    program: str
    name: str
    machine_type: str
    accel: str
    cmdline: str
    forwards: tuple[Forward, ...] = ()
    vsock_chardev: str | None = None
    vsock_device: str = ""
    share_fds: tuple[int, ...] = field(default=())


def device_count(config: VmConfig) -> int:
    """Return the number of virtio devices: root, disks, shares, vsock, entropy, network."""
    return 1 + len(config.disks) + len(config.shares) + 2 + int(config.network)


def choose_machine_type(config: VmConfig, *, clock: bool = True) -> str:
    """Return the machine type: microvm if its eight transports suffice, else q35.

    A microvm starts faster. `clock`: the guest will know the rate of its time stamp counter,
    because a microvm has no other good clock. Raises InnkeeperError if a requested microvm has too
    few transports, or if even q35 has too few slots.
    """
    needed = device_count(config)
    if needed > PCI_SLOTS:
        raise InnkeeperError(f"a VM has slots for {PCI_SLOTS} virtio devices, this one needs {needed}", hint="share fewer folders")
    if config.machine_type == "microvm" and needed > MMIO_SLOTS:
        raise InnkeeperError(f"machine type microvm has {MMIO_SLOTS} virtio devices, this VM needs {needed}", hint="use q35")
    return config.machine_type or ("microvm" if needed <= MMIO_SLOTS and clock else "q35")


def arguments(launch: Launch) -> list[str]:
    """Return QEMU's command line."""
    config = launch.config
    bus = _Bus(launch.machine_type)
    out = [launch.program, "-name", f"innkeeper-{launch.name}", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    out += ["-sandbox", SANDBOX]
    out += ["-machine", _machine(launch), *_accel(launch), "-smp", str(config.cpus), "-m", f"{config.memory_mib}M"]
    # Shared, because the vhost-user back ends (vsock, virtio-fs) map the guest's memory.
    out += ["-object", f"memory-backend-memfd,id=mem,size={config.memory_mib}M,share=on"]
    if bus.mmio:
        # vhost-user back ends support virtio 1.0 only.
        out += ["-global", "virtio-mmio.force-legacy=false"]
    out += ["-kernel", str(config.kernel.absolute()), "-append", launch.cmdline]
    if config.initrd is not None:
        out += ["-initrd", str(config.initrd.absolute())]
    out += ["-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"]
    for index, disk in enumerate((Disk(config.root, read_only=True), *config.disks)):
        out += ["-blockdev", _blockdev(index, disk), "-device", bus.device("virtio-blk", f"drive=disk{index}")]
    if launch.vsock_chardev is not None:
        out += ["-chardev", launch.vsock_chardev]
    if launch.vsock_device:
        driver, _, properties = launch.vsock_device.partition(",")
        out += ["-device", bus.device(driver, properties)]
        if driver == "virtio-serial":
            out += ["-device", "virtserialport,chardev=vsock,nr=1,name=innkeeper"]
    out += _shares(launch, bus)
    if config.network:
        # No boot ROM: the kernel is loaded by -kernel.
        rom = "" if bus.mmio else ",romfile="
        out += ["-netdev", network.netdev(launch.forwards), "-device", bus.device("virtio-net", f"netdev=net,mac={network.MAC}{rom}")]
    out += ["-device", bus.device("virtio-rng", "")]
    return out


def _machine(launch: Launch) -> str:
    if launch.machine_type == "microvm":
        # Without ACPI the guest needs no interpreter for it. Under TCG it does not even boot with
        # it.
        return "microvm,memory-backend=mem,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on"
    return "q35,memory-backend=mem,vmport=off,smm=off,graphics=off,usb=off,hpet=off"


def _accel(launch: Launch) -> list[str]:
    if launch.accel == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # Without these two features the guest copies and clears pages word by word. TCG runs `rep
    # movsb` byte by byte.
    return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-erms,-fsrm"]


def _blockdev(index: int, disk: Disk) -> str:
    """Return the -blockdev of a disk as JSON, in which a comma in a path needs no escape."""
    node: dict[str, object] = {
        "driver": "raw",
        "node-name": f"disk{index}",
        "read-only": disk.read_only,
        "file": {"driver": "file", "filename": str(disk.path.absolute()), "read-only": disk.read_only},
    }
    if not disk.read_only:
        node["discard"] = "unmap"  # blocks that the guest frees become holes in the sparse file
    if disk.volatile:
        node["cache"] = {"no-flush": True}
    return json.dumps(node)


def _shares(launch: Launch, bus: "_Bus") -> list[str]:
    out: list[str] = []
    for index, (share, fd) in enumerate(zip(launch.config.shares, launch.share_fds, strict=True)):
        out += ["-chardev", f"socket,id=share{index},fd={fd}"]
        out += ["-device", bus.device("vhost-user-fs", f"chardev=share{index},tag={share.tag}")]
    return out


class _Bus:
    """Names of devices, on PCI or on virtio-mmio.

    QEMU announces the mmio slots to the kernel from the last to the first, and the kernel names
    disks in that order. So the first device gets the last slot.
    """

    def __init__(self, machine_type: str) -> None:
        self.mmio = machine_type == "microvm"
        self._slot = 0

    def device(self, driver: str, properties: str) -> str:
        tail = f",{properties}" if properties else ""
        if not self.mmio:
            modern = "" if driver.startswith("vhost-user-fs") else ",disable-legacy=on"
            return f"{driver}-pci{tail}{modern}"
        slot, self._slot = self._slot, self._slot + 1
        return f"{driver}-device,bus=virtio-mmio-bus.{MMIO_SLOTS - 1 - slot}{tail}"
