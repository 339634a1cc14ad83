"""The first second of the guest, for PID 1.

Mounts, device links, cgroups, limits, host name, loopback and entropy. All of it runs after the
agent has begun to listen, and before any call other than those to Health is served.
"""

import _socket as socket  # the public module imports enum and selectors: too slow at start-up
import fcntl
import os
import resource
import struct
from pathlib import Path

from agent import log
from agent.linux import mount as m
from agent.linux.fd import OwnedFd
from agent.linux.loopback import loopback_up
from agent.linux.mount_table import mount_table

PATH = "/bin:/sbin:/usr/bin:/usr/sbin"
CGROUP_ROOT = "/sys/fs/cgroup"
AGENT_CGROUP = "agent"
"""Name of the cgroup of the agent itself."""

_NOSUID, _NODEV, _NOEXEC = m.MOUNT_ATTR_NOSUID, m.MOUNT_ATTR_NODEV, m.MOUNT_ATTR_NOEXEC

# Target, file system, options, mount attributes; in the order in which they are mounted.
MOUNTS: "tuple[tuple[str, bytes, tuple[tuple[bytes, bytes | None], ...], int], ...]" = (
    ("/proc", b"proc", (), _NOSUID | _NODEV | _NOEXEC),
    ("/sys", b"sysfs", (), _NOSUID | _NODEV | _NOEXEC),
    ("/dev", b"devtmpfs", (), _NOSUID),
    ("/dev/shm", b"tmpfs", ((b"mode", b"1777"),), _NOSUID | _NODEV),
    ("/dev/pts", b"devpts", ((b"mode", b"620"), (b"gid", b"5"), (b"ptmxmode", b"666")), _NOSUID | _NOEXEC),
    ("/run", b"tmpfs", ((b"mode", b"755"),), _NOSUID | _NODEV),
    ("/tmp", b"tmpfs", ((b"mode", b"1777"),), _NOSUID | _NODEV),
    # favordynmods: moving a process into a cgroup takes 0.1 ms instead of 5 to 17 ms
    ("/sys/fs/cgroup", b"cgroup2", ((b"nsdelegate", None), (b"favordynmods", None)), _NOSUID | _NODEV | _NOEXEC),
)

DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)

LIMITS: "tuple[tuple[int, int, int], ...]" = (
    (resource.RLIMIT_NOFILE, 1048576, 1048576),
    (resource.RLIMIT_CORE, 0, resource.RLIM_INFINITY),
    (resource.RLIMIT_NPROC, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    (resource.RLIMIT_MEMLOCK, 8 << 20, 8 << 20),
)
"""Resource limits as (resource, soft, hard)."""

RNDADDENTROPY = 0x40085203


def leave_initramfs() -> None:
    """Cover the kernel's initramfs with a read-only bind mount of itself, and chroot there.

    pivot_root(2) refuses to leave the initramfs, because it is not mounted below another mount.
    Without this step it would fail in every container. Does nothing if the root is another file
    system. Raises OSError.
    """
    with OwnedFd(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        if m.filesystem_magic(root) not in (m.RAMFS_MAGIC, m.TMPFS_MAGIC):
            return
        mount = m.clone_tree(root)
    with OwnedFd(mount):
        m.set_attributes(mount, m.MOUNT_ATTR_RDONLY)
        # The attribute covers this mount only. The mount below stays writable, and would appear
        # again if this one were unmounted. So the file system is made read-only as well.
        m.reconfigure(mount, ((b"ro", None),))
        m.move_mount_path(mount, "/")
        os.fchdir(mount)
    os.chroot(".")


def mount_all() -> None:
    """Mount the table MOUNTS. Raises OSError.

    A target that has a mount of the same file system already is left alone: the kernel itself may
    have mounted /dev.
    """
    mounted = _mounted()
    for target, filesystem, options, attributes in MOUNTS:
        if mounted.get(target) == filesystem.decode():
            continue
        _mount(target, filesystem, options, attributes)


def _mounted() -> "dict[str, str]":
    """Return the file system types of all mounts by target."""
    try:
        return {entry.mountpoint: entry.filesystem for entry in mount_table()}
    except FileNotFoundError:
        return {}  # /proc is the first entry of the table and not mounted yet


def _mount(target: str, filesystem: bytes, options: "tuple[tuple[bytes, bytes | None], ...]", attributes: int) -> None:
    """Mount one entry. Raises OSError.

    A kernel that does not know favordynmods refuses it, so cgroup2 is tried again without.
    """
    try:
        os.mkdir(target)
    except OSError:
        pass  # it exists, or the root is read-only: then the error of the mount names it
    try:
        m.mount_at(target, filesystem, options, attributes)
    except OSError as error:
        if filesystem != b"cgroup2":
            raise
        log.warn(f"cgroup2 without favordynmods: {error}", "boot")
        m.mount_at(target, filesystem, options[:1], attributes)


def link_devices() -> None:
    """Link /dev/fd and its relatives, and /dev/ptmx to that of the devpts mounted here.

    An error is logged.
    """
    for source, target in DEVICE_LINKS:
        try:
            if os.path.lexists(target):
                os.unlink(target)
            os.symlink(source, target)
        except OSError as error:
            log.warn(f"{target}: {error}", "boot")


def prepare_cgroups(root: str = CGROUP_ROOT) -> None:
    """Move the agent into a cgroup of its own and enable every controller for those of containers.

    A controller that cannot be enabled is logged. Raises OSError.
    """
    own = Path(root, AGENT_CGROUP)
    own.mkdir(parents=True, exist_ok=True)
    (own / "cgroup.procs").write_text("0")
    for controller in Path(root, "cgroup.controllers").read_text(encoding="ascii").split():
        try:
            Path(root, "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            log.warn(f"cgroup controller {controller}: {error}", "boot")


def raise_limits() -> None:
    """Set the limits that containers inherit if their spec has none. Errors are logged."""
    for limit, soft, hard in LIMITS:
        try:
            resource.setrlimit(limit, (soft, hard))
        except (OSError, ValueError) as error:
            log.warn(f"limit {limit}: {error}", "boot")


def name_host() -> None:
    """Set the host name to that in /etc/hostname, or else to `localhost`."""
    try:
        name = Path("/etc/hostname").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        name = ""
    socket.sethostname(name or "localhost")


def ensure_entropy() -> None:
    """Seed the kernel's random generator if it is not ready yet.

    The seed comes from the hardware generator of the VM. An error is logged.
    """
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
        return
    except BlockingIOError:
        pass
    try:
        with open("/dev/hwrng", "rb", buffering=0) as source:
            seed = source.read(64)
        with open("/dev/random", "wb", buffering=0) as target:
            fcntl.ioctl(target.fileno(), RNDADDENTROPY, struct.pack(f"ii{len(seed)}s", len(seed) * 8, len(seed), seed))
    except OSError as error:
        log.warn(f"no entropy yet: {error}", "boot")


def boot() -> None:
    """Do all steps in order.

    An OSError of a mount is raised and fatal. Errors that a guest can live with are logged.
    """
    mount_all()
    link_devices()
    prepare_cgroups()
    raise_limits()
    os.environ["PATH"] = PATH
    name_host()
    for step in (loopback_up, ensure_entropy):
        try:
            step()
        except OSError as error:
            log.error(f"{step.__name__}: {error}", "boot")
