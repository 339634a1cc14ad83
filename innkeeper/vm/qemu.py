"""QEMU's argument list, as a pure function of its inputs.

It can be tested and printed without starting anything.
"""

import json
import os
from dataclasses import dataclass, field

from innkeeper.errors import InnkeeperError
from innkeeper.vm import network
from innkeeper.vm.config import VIRT, Disk, Forward, Tap, VmConfig

MMIO_SLOTS = 8
"""The virtio-mmio transports of a microvm (docs/system/i386/microvm.rst)."""

PCI_SLOTS = 30
"""The free slots of q35's root bus.

It has 32, of which the host bridge takes the first and the ISA bridge the last. Machine type virt
has no ISA bridge.
"""

SHARE_PORTS = 8
"""The PCIe root ports of a cloneable VM: slots for shares, which cannot be part of saved state."""

CARD_SLOT = 0x1D
"""The slot of q35's root bus with the PCIe root port for a card on a `Tap`."""
CARD_PATH = f"{CARD_SLOT:02x}/00"
"""The PCI path of that card, as the agent's UpdateInterface takes it."""

SCSI = "scsi"
"""The name of the bus that disks are plugged into (see `scsi`)."""

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Launch:
    """All inputs of the argument list.

    `cpu` is the CPU model under KVM (see `accel.cpu_model`). `vsock_chardev` and `vsock_device` are
    QEMU options from the vsock back end. `share_fds` are the connections to virtiofsd, one per
    share. `qmp_fd` is QEMU's end of its control connection. The rest is for a cloneable VM: the
    file `ram` as its memory, of which it sees changes of its own only if `ram_private`;
    `generation`, the UUID by which the guest notices that it was cloned; and whether it waits for
    state (`incoming`).
    """

    config: VmConfig
    program: str
    name: str
    machine_type: str
    accel: str
    cmdline: str
    cpu: str = "host"
    forwards: tuple[Forward, ...] = ()
    vsock_chardev: str | None = None
    vsock_device: str = ""
    share_fds: tuple[int, ...] = field(default=())
    qmp_fd: int | None = None
    ram: str | None = None
    ram_private: bool = False
    generation: str = ""
    incoming: bool = False


def new_generation() -> str:
    """Return a random UUID for a clone.

    The uuid module takes longer to import than all of this one.
    """
    digits = bytearray(os.urandom(16))
    digits[6], digits[8] = digits[6] & 0x0F | 0x40, digits[8] & 0x3F | 0x80  # version 4 (RFC 9562)
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def device_count(config: VmConfig) -> int:
    """Return the number of virtio devices.

    These are root, disks, shares, vsock, entropy, network, balloon and SCSI bus.
    """
    optional = (config.gives_memory_back, config.plugs_disks)
    return 1 + len(config.disks) + len(config.shares) + 2 + (len(config.taps) or int(bool(config.network))) + sum(optional)


def choose_machine_type(config: VmConfig, *, clock: bool = True) -> str:
    """Return the machine type: microvm if its eight transports suffice, else q35.

    A microvm starts faster. `clock`: the guest will know the rate of its time stamp counter,
    because a microvm has no other good clock. Raises InnkeeperError if a requested microvm has too
    few transports, or if even q35 has too few slots.
    """
    if config.cloneable:
        if len(config.shares) > SHARE_PORTS:
            raise InnkeeperError(f"a cloneable VM has slots for {SHARE_PORTS} shares, this one needs {len(config.shares)}")
        return "q35"
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
    out += ["-object", _memory(launch)]
    if bus.mmio:
        # vhost-user back ends support virtio 1.0 only.
        out += ["-global", "virtio-mmio.force-legacy=false"]
    out += ["-kernel", str(config.kernel.absolute()), "-append", launch.cmdline]
    if config.initrd is not None:
        out += ["-initrd", str(config.initrd.absolute())]
    out += ["-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"]
    if launch.qmp_fd is not None:
        out += ["-chardev", f"socket,id=qmp,fd={launch.qmp_fd}", "-mon", "chardev=qmp,mode=control"]
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
    out += _network(launch, bus)
    out += ["-device", bus.device("virtio-rng", "")]
    if config.gives_memory_back:
        # Nothing inflates it. It is there for its report of free pages, of which QEMU makes holes.
        out += ["-device", bus.device("virtio-balloon", "free-page-reporting=on")]
    if config.plugs_disks:
        out += ["-device", bus.device("virtio-scsi", f"id={SCSI}")]
    if config.cloneable:
        out += _cloneable(launch)
    return [*out, "-incoming", "defer", "-S"] if launch.incoming else out


def _memory(launch: Launch) -> str:
    """Return the -object of the guest's memory.

    It is shared if a vhost-user back end (vsock, virtio-fs) maps it. A clone without them has a
    private mapping, which saves the copy. Otherwise it is anonymous: to save its state QEMU reads
    all of it, and that allocates no page that was never written.
    """
    size = f"id=mem,size={launch.config.memory_mib}M"
    if launch.ram is None:
        mapped = launch.share_fds or launch.vsock_device.startswith("vhost-user")
        return f"memory-backend-memfd,{size},share=on" if mapped else f"memory-backend-ram,{size}"
    return f"memory-backend-file,{size},mem-path={launch.ram.replace(',', ',,')},share={'off' if launch.ram_private else 'on'}"


def _cloneable(launch: Launch) -> list[str]:
    """Return the options that only a cloneable VM has.

    Its devices come last: they change no address.
    """
    out = ["-device", f"vmgenid,guid={launch.generation}"]
    for index in range(SHARE_PORTS):
        out += ["-device", f"pcie-root-port,id=share-port{index},chassis={index + 1},io-reserve=0"]
    card = f"pcie-root-port,id=card-port,chassis={SHARE_PORTS + 1},io-reserve=0,addr={CARD_SLOT:#x}"
    return [*out, "-device", card]


def share_device(index: int, tag: str) -> dict[str, object]:
    """Return the arguments of QMP's device_add that plug share `index` into a cloneable VM."""
    place = {"bus": f"share-port{index}", "id": f"share{index}-device"}
    return {"driver": "vhost-user-fs-pci", "chardev": f"share{index}", "tag": tag, **place}


def reporting_device() -> dict[str, object]:
    """Return the arguments of QMP's device_add for a device that takes reports of free pages.

    It is in the slot of a share for a while, see `CloneableVm.take_free_pages`.
    """
    return {"driver": "virtio-balloon-pci", "free-page-reporting": True, "bus": "share-port0", "id": "free-pages"}


def card_device(tap: Tap) -> dict[str, object]:
    """Return the arguments of QMP's device_add that plug a card into a cloneable VM."""
    return {"driver": "virtio-net-pci", "netdev": "net", "mac": tap.mac, "romfile": "", "bus": "card-port", "id": "card"}


def _machine(launch: Launch) -> str:
    if launch.machine_type == VIRT:
        return f"{VIRT},memory-backend=mem,gic-version=3"  # the older interrupt controller has 8 processors at most
    if launch.machine_type == "microvm":
        # Without ACPI the guest needs no interpreter for it. Under TCG it does not even boot with
        # it.
        return "microvm,memory-backend=mem,acpi=off,pit=on,pic=on,rtc=on,isa-serial=on"
    return "q35,memory-backend=mem,vmport=off,smm=off,graphics=off,usb=off,hpet=off"


def _accel(launch: Launch) -> list[str]:
    if launch.accel == "kvm":
        return ["-accel", "kvm", "-cpu", launch.cpu]
    if launch.machine_type == VIRT:
        # The architecture's own algorithm for signed pointers takes half of the time under TCG.
        return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,pauth-impdef=on"]
    # Without these two features the guest copies and clears pages word by word. TCG runs `rep
    # movsb` byte by byte.
    return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-erms,-fsrm"]


def _blockdev(index: int, disk: Disk) -> str:
    """Return the -blockdev of a disk as JSON, in which a comma in a path needs no escape."""
    return json.dumps(disk_node(index, disk, disk_file(disk)))


def disk_node(index: int, disk: Disk, file: object) -> dict[str, object]:
    """Return the options of a disk's block node.

    `file` is its file: options, or the name of a node.
    """
    return {"driver": "raw", "node-name": f"disk{index}", "read-only": disk.read_only, "file": file, **_policy(disk)}


def file_node(name: str, disk: Disk) -> dict[str, object]:
    """Return the options of a node for a disk's file alone, for `disk_node` to refer to."""
    return {**disk_file(disk), "node-name": name, **_policy(disk)}


def disk_file(disk: Disk) -> dict[str, object]:
    """Return the options of the node for a disk's file, or for a block device of the host."""
    driver = "host_device" if disk.path.is_block_device() else "file"
    return {"driver": driver, "filename": str(disk.path.absolute()), "read-only": disk.read_only}


def _policy(disk: Disk) -> dict[str, object]:
    options: dict[str, object] = {}
    if not disk.read_only:
        options["discard"] = "unmap"  # blocks that the guest frees become holes in the sparse file
    if disk.volatile:
        options["cache"] = {"no-flush": True}
    return options


def _shares(launch: Launch, bus: "_Bus") -> list[str]:
    out: list[str] = []
    for index, (share, fd) in enumerate(zip(launch.config.shares, launch.share_fds, strict=True)):
        out += ["-chardev", f"socket,id=share{index},fd={fd}"]
        if launch.config.cloneable:
            continue  # plugged in once the state is loaded, see `share_device`
        out += ["-device", bus.device("vhost-user-fs", f"chardev=share{index},tag={share.tag}")]
    return out


def _network(launch: Launch, bus: "_Bus") -> list[str]:
    config = launch.config
    if not config.network:
        return []
    cards = [("net", network.netdev(launch.forwards), network.MAC)]
    if config.taps:
        names = ["net", *(f"net{index}" for index in range(1, len(config.taps)))]
        cards = [(name, f"tap,id={name},fd={tap.fd}", tap.mac) for name, tap in zip(names, config.taps, strict=True)]
        if config.cloneable:
            return ["-netdev", cards[0][1]]  # plugged in once the state is loaded, see `card_device`
    # No boot ROM: the kernel is loaded by -kernel.
    rom = "" if bus.mmio else ",romfile="
    return [
        word
        for name, netdev, mac in cards
        for word in ("-netdev", netdev, "-device", bus.device("virtio-net", f"netdev={name},mac={mac}{rom}"))
    ]


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
