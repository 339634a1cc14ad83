"""The guest's first second, for PID 1: mounts, devices' links, control groups, limits, host name, loopback, entropy.

All of it runs after the agent has begun to listen and before the first call but Health.Check is served.
"""

import _socket as socket  # the public module imports enum and selectors, which start-up does without
import fcntl
import os
import resource
import struct

from agent import log
from agent.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    RAMFS_MAGIC,
    TMPFS_MAGIC,
    clone_tree,
    filesystem_magic,
    move_mount_path,
    new_mount,
    reconfigure,
    set_attributes,
)
from agent.network.loopback import loopback_up

PATH = "/bin:/sbin:/usr/bin:/usr/sbin"
CGROUP_ROOT = "/sys/fs/cgroup"
OWN_GROUP = "agent"

_NOSUID, _NODEV, _NOEXEC = MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC

# target, file system, options, attributes
MOUNTS: "tuple[tuple[str, bytes, tuple[tuple[bytes, bytes | None], ...], int], ...]" = (
    ("/proc", b"proc", (), _NOSUID | _NODEV | _NOEXEC),
    ("/sys", b"sysfs", (), _NOSUID | _NODEV | _NOEXEC),
    ("/dev", b"devtmpfs", (), _NOSUID),
    ("/dev/shm", b"tmpfs", ((b"mode", b"1777"),), _NOSUID | _NODEV),
    ("/dev/pts", b"devpts", ((b"mode", b"620"), (b"gid", b"5"), (b"ptmxmode", b"666")), _NOSUID | _NOEXEC),
    ("/run", b"tmpfs", ((b"mode", b"755"),), _NOSUID | _NODEV),
    ("/tmp", b"tmpfs", ((b"mode", b"1777"),), _NOSUID | _NODEV),
    # favordynmods: moving a process into a group costs 0.1 ms instead of 5-17
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

RNDADDENTROPY = 0x40085203


def leave_initramfs() -> None:
    """Where the root is what the kernel unpacked an initrd into: a read-only mount of the same over it, and that as the root.

    What the kernel unpacks into is no mount below another one, so pivot_root(2) refuses to leave it, in every container.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if filesystem_magic(root) not in (RAMFS_MAGIC, TMPFS_MAGIC):
            return
        mount = clone_tree(root)
    finally:
        os.close(root)
    try:
        set_attributes(mount, MOUNT_ATTR_RDONLY)
        # The mount below stays writable by itself, and comes to light for whoever takes this one away.
        reconfigure(mount, ((b"ro", None),))
        move_mount_path(mount, "/")
        os.fchdir(mount)
    finally:
        os.close(mount)
    os.chroot(".")


def mount_all() -> None:
    """The mount table. What is mounted already with the same file system is left as it is (the kernel mounts /dev itself)."""
    mounted = _mounted()
    for target, filesystem, options, attributes in MOUNTS:
        if mounted.get(target) == filesystem.decode():
            continue
        _mount(target, filesystem, options, attributes)


def _mounted() -> "dict[str, str]":
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            return {fields[1]: fields[2] for fields in (line.split(" ") for line in file)}
    except FileNotFoundError:
        return {}  # /proc comes first in the table


def _mount(target: str, filesystem: bytes, options: "tuple[tuple[bytes, bytes | None], ...]", attributes: int) -> None:
    try:
        os.mkdir(target)
    except OSError:
        pass  # there already, or on a read-only root: then the mount itself says what is missing
    try:
        fd = new_mount(filesystem, options, attributes)
    except OSError as error:
        if filesystem != b"cgroup2":
            raise
        log.warn(f"cgroup2 without favordynmods: {error}", "boot")
        fd = new_mount(filesystem, options[:1], attributes)
    try:
        move_mount_path(fd, target)
    finally:
        os.close(fd)


def link_devices() -> None:
    """/dev/fd and friends; /dev/ptmx is that of our devpts."""
    for source, target in DEVICE_LINKS:
        try:
            if os.path.lexists(target):
                os.unlink(target)
            os.symlink(source, target)
        except OSError as error:
            log.warn(f"{target}: {error}", "boot")


def prepare_cgroups(root: str = CGROUP_ROOT) -> None:
    """Move the agent into a group of its own and offer every controller to the groups of containers."""
    own = os.path.join(root, OWN_GROUP)
    os.makedirs(own, exist_ok=True)
    _write(os.path.join(own, "cgroup.procs"), "0")
    with open(os.path.join(root, "cgroup.controllers"), encoding="ascii") as file:
        controllers = file.read().split()
    for controller in controllers:
        try:
            _write(os.path.join(root, "cgroup.subtree_control"), f"+{controller}")
        except OSError as error:
            log.warn(f"cgroup controller {controller}: {error}", "boot")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def raise_limits() -> None:
    """Limits that containers inherit where their spec says nothing."""
    for limit, soft, hard in LIMITS:
        try:
            resource.setrlimit(limit, (soft, hard))
        except (OSError, ValueError) as error:
            log.warn(f"limit {limit}: {error}", "boot")


def name_host() -> None:
    """The name in /etc/hostname, else `localhost`."""
    try:
        with open("/etc/hostname", encoding="ascii") as file:
            name = file.read().strip()
    except (OSError, UnicodeDecodeError):
        name = ""
    socket.sethostname(name or "localhost")


def ensure_entropy() -> None:
    """Where the kernel's generator is not ready yet, feed it from the machine's hardware generator."""
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
    """Everything, in order. An OSError of the mounts is fatal; what a guest can live without is logged."""
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
