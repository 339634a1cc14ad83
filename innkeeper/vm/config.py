"""The configuration of a VM: plain values, checked on creation."""

from dataclasses import dataclass
from pathlib import Path

from innkeeper.errors import InnkeeperError

VIRT = "virt"
"""QEMU's machine type for a guest for aarch64."""


@dataclass(frozen=True)
class HostPrograms:
    """Paths of the host's programs that a VM is made of. Nothing here looks for or installs one.

    `virtiofsd` is needed with shares only. `vhost_device_vsock` stands in for the kernel's vsock
    where that does not work; without it the guest's ports are reached by virtio-serial. `nsenter`
    is needed with a `Tap` only.
    """

    qemu: Path
    setpriv: Path
    virtiofsd: Path | None = None
    vhost_device_vsock: Path | None = None
    nsenter: Path | None = None


@dataclass(frozen=True)
class Disk:
    """A raw image that becomes a virtio block device.

    `volatile`: the content is discarded with the VM, so flushes are not passed on to the host's
    disk.
    """

    path: Path
    read_only: bool = False
    volatile: bool = False


@dataclass(frozen=True)
class SharedPath:
    """A folder or a file of the host that a share offers as its folder `name`.

    The empty name makes it the root of the share. A file is offered as a folder that holds only
    this file, under its own name.
    """

    name: str
    source: Path
    read_only: bool = False

    def __post_init__(self) -> None:
        if "/" in self.name or self.name in (".", ".."):
            raise InnkeeperError(f"name {self.name!r} of a shared folder must be a plain name")
        if not self.source.exists():
            raise InnkeeperError(f"{self.source}: no such file or folder on the host, it cannot be shared")


@dataclass(frozen=True)
class Share:
    """The content of one virtio-fs device with tag `tag` (at most 36 bytes).

    It is either one path, which is the root, or several paths below a read-only root. `namespace`
    is the path of the mount namespace where they are, or empty for that of this process.
    """

    tag: str
    paths: tuple[SharedPath, ...]
    namespace: str = ""

    @classmethod
    def of(cls, tag: str, source: Path, read_only: bool = False) -> "Share":
        """Return a share whose root is one folder, or holds one file."""
        return cls(tag, (SharedPath("", source, read_only),))

    def __post_init__(self) -> None:
        if not self.tag or len(self.tag.encode()) > 36 or "," in self.tag or "/" in self.tag:
            raise InnkeeperError(f"share tag {self.tag!r} must have 1 to 36 bytes, no comma and no slash")
        names = [path.name for path in self.paths]
        if not names or len(set(names)) != len(names) or ("" in names and len(names) > 1):
            raise InnkeeperError(f"share {self.tag}: it needs one path, or several with a name of their own each")

    def __str__(self) -> str:
        return ", ".join(str(path.source) for path in self.paths)


@dataclass(frozen=True)
class Forward:
    """A port of the host that is forwarded to a port of the guest.

    `host_port` 0 asks for a free one (see `network.resolve_ports`). `host_address` is an IPv4 or
    IPv6 address, or "" for all addresses of both.
    """

    protocol: str
    host_address: str
    host_port: int
    guest_port: int

    def __post_init__(self) -> None:
        if self.protocol not in ("tcp", "udp"):
            raise InnkeeperError(f"port forward: protocol {self.protocol!r} is neither tcp nor udp")
        if not 0 <= self.host_port <= 65535 or not 1 <= self.guest_port <= 65535:
            raise InnkeeperError(f"port forward {self}: a port is out of range")

    def __str__(self) -> str:
        address = f"[{self.host_address}]" if ":" in self.host_address else self.host_address or "0.0.0.0"
        return f"{address}:{self.host_port}->{self.guest_port}/{self.protocol}"


@dataclass(frozen=True)
class Tap:
    """A network card on a tap device that its owner has made, in place of QEMU's user network.

    `fd` is the device, which QEMU inherits, opened with IFF_VNET_HDR. QEMU runs in the network
    namespace `namespace`: who looks for the network of a VM's process finds that of its card.
    """

    fd: int
    mac: str
    namespace: Path


@dataclass(frozen=True)
class VmConfig:
    """One virtual machine.

    * `kernel`: vmlinux (PVH) or bzImage
    * `root`: the guest's root, read-only, /dev/vda
    * `initrd`: what the kernel starts before the root, for a kernel whose drivers are modules
    * `root_device`, `root_type`: the kernel parameters `root=` and `rootfstype=`
    * `disks`: /dev/vdb, /dev/vdc, ... in this order
    * `network`: a virtio network card on QEMU's user network (10.0.2.15/24, gateway 10.0.2.2, name
      server 10.0.2.3); a tuple of `Tap`: one on each of these devices, which are eth0, eth1, ...
    * `accel`: "kvm" or "tcg"; None: KVM if a guest has proven that it works (`accel.kvm`), never
      for aarch64
    * `cmdline`: words appended to the kernel's command line (the last ones win)
    * `calls_out`: the guest reports that it listens (kernel parameter `INNKEEPER_READY=PORT`);
      False: it is dialled until it answers
    * `machine_type`: "q35" or "microvm"; None: `qemu.choose_machine_type` decides; "virt": a guest
      for aarch64
    * `cloneable`: its state can be saved and loaded (see `template`): a q35 with a virtio-serial
      channel, a generation id, and slots into which its shares and the card of a `Tap` are plugged
    * `gives_memory_back`: the guest reports free pages, and the host gets them back a few seconds
      later (virtio-balloon). It must be False for a cloneable VM: QEMU makes holes in the file of
      the memory, which for clones is that of the template
    * `plugs_disks`: disks can be plugged while it runs (`VirtualMachine.scsi`)
    """

    kernel: Path
    root: Path
    memory_mib: int = 512
    cpus: int = 1
    disks: tuple[Disk, ...] = ()
    shares: tuple[Share, ...] = ()
    network: bool | tuple[Tap, ...] = True
    forwards: tuple[Forward, ...] = ()
    accel: str | None = None
    cmdline: tuple[str, ...] = ()
    machine_type: str | None = None
    root_device: str = "/dev/vda"
    root_type: str = "erofs"
    calls_out: bool = True
    quiet: bool = True
    initrd: Path | None = None
    cloneable: bool = False
    gives_memory_back: bool = True
    plugs_disks: bool = False

    def __post_init__(self) -> None:
        files = {"kernel": self.kernel, "root": self.root, "initrd": self.initrd}
        files |= {f"disk {index}": disk.path for index, disk in enumerate(self.disks)}
        for name, path in files.items():
            if path is not None and not path.is_file():
                raise InnkeeperError(f"{name} of the VM: {path} is not a file")
        if self.memory_mib < 64:
            raise InnkeeperError(f"a VM needs at least 64 MiB of memory, not {self.memory_mib}")
        if self.cpus < 1:
            raise InnkeeperError(f"a VM needs at least one CPU, not {self.cpus}")
        if self.accel not in (None, "kvm", "tcg"):
            raise InnkeeperError(f"accelerator {self.accel!r} is neither kvm nor tcg")
        if self.machine_type not in (None, "q35", "microvm", VIRT):
            raise InnkeeperError(f"machine type {self.machine_type!r} is neither q35, microvm nor virt")
        if self.machine_type == VIRT and self.accel == "kvm":
            raise InnkeeperError("a guest for aarch64 is emulated on this host", hint="use --accel tcg, or leave --accel out")
        if self.cloneable and self.machine_type in ("microvm", VIRT):
            raise InnkeeperError(f"a VM of machine type {self.machine_type} has no slots to plug devices into, so it cannot be cloned")
        if self.cloneable and self.gives_memory_back:
            raise InnkeeperError("memory of a cloneable VM cannot be given back: a template holds it for all of its clones")
        if self.forwards and not self.network:
            raise InnkeeperError("ports cannot be forwarded to a VM without a network")
        if self.taps and self.forwards:
            raise InnkeeperError("a VM with a tap device has no forwarded ports")
        if len(self.taps) > 1 and self.cloneable:
            raise InnkeeperError("a cloneable VM has a slot for one card on a tap device")
        tags = [s.tag for s in self.shares]
        if len(set(tags)) != len(tags):
            raise InnkeeperError(f"two shares have the same tag: {', '.join(tags)}")

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The tap devices of the network, none with the user network."""
        return self.network if isinstance(self.network, tuple) else ()
