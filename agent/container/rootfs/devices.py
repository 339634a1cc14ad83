"""Device nodes: the default ones, those of the spec, the links below /dev, and the console."""

import errno
import fcntl
import os
import stat
import struct
import termios
from dataclasses import dataclass

from agent.container.rootfs.operation import Operation
from agent.container.spec.linux import Device
from agent.linux import mount as m
from agent.linux.openat2 import IN_ROOT_NO_LINKS, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, make_directory_in_root, openat2

DEFAULT_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
DEFAULT_PATHS = frozenset(f"/dev/{name}" for name, _, _ in DEFAULT_NODES)
FILE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
PTMX_NUMBER = os.makedev(5, 2)
_HERE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


@dataclass(frozen=True, slots=True)
class DefaultDevices(Operation):
    """The default nodes (null, zero, full, random, urandom, tty) and links.

    `sources` are cloned mounts of the agent's nodes, for where mknod(2) is not permitted.
    """

    sources: tuple[tuple[str, int], ...] = ()

    def describe(self) -> str:
        return "make the default devices and links below /dev"

    def execute(self, root: int) -> None:
        # No link is followed: a /dev that is a symbolic link would put the nodes elsewhere
        # (CVE-2026-41579).
        dev = make_directory_in_root(root, "/dev", resolve=IN_ROOT_NO_LINKS)
        for name, major, minor in DEFAULT_NODES:
            _make_node(dev, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dict(self.sources).get(f"/dev/{name}", -1))
        for name, target in LINKS:
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                _check_link(dev, name, target)
        os.close(dev)


def _check_link(dev: int, name: str, target: str) -> None:
    try:
        existing = os.readlink(name, dir_fd=dev)
    except OSError:
        existing = ""
    if existing != target and not (name == "ptmx" and existing == "/dev/pts/ptmx"):
        raise FileExistsError(errno.EEXIST, f"something else than a link to {target} is in the way", f"/dev/{name}")


@dataclass(frozen=True, slots=True)
class MakeDevice(Operation):
    """One device node of `linux.devices`."""

    device: Device
    source: int = -1

    def describe(self) -> str:
        device = self.device
        return f"make {device.path} ({device.type} {device.major}:{device.minor}, mode {device.mode:o})"

    def execute(self, root: int) -> None:
        device = self.device
        parent_path, name = os.path.split(device.path)
        parent = make_directory_in_root(root, parent_path, resolve=IN_ROOT_NO_LINKS)
        number = 0 if device.type == "p" else os.makedev(device.major, device.minor)
        _make_node(parent, name, FILE_TYPES[device.type] | device.mode, number, self.source, (device.uid, device.gid))
        os.close(parent)


def _make_node(parent: int, name: str, mode: int, number: int, source: int, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a node below `parent`, or bind the agent's own node `source` if it is not -1.

    An existing node of the same type and number is kept, with the mode and owner set.
    """
    try:
        if source < 0:
            os.mknod(name, mode, number, dir_fd=parent)
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
            return
        os.close(openat2(parent, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, _HERE, 0o644))
        target = openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, _HERE)
        m.move_mount(source, target, name)
        os.close(target)
    except FileExistsError:
        _check_node(parent, name, mode, number)
        if source < 0:
            _set_node(parent, name, mode, owner)
    if source >= 0:
        os.close(source)


def _check_node(parent: int, name: str, mode: int, number: int) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or (number and status.st_rdev != number):
        raise FileExistsError(errno.EEXIST, "another file is in the device's place", name)


def _set_node(parent: int, name: str, mode: int, owner: tuple[int, int]) -> None:
    """Set the mode and owner of an existing node.

    By its descriptor, so that a symbolic link that replaces it meanwhile is not followed.
    """
    try:
        fd = openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, _HERE | RESOLVE_NO_XDEV)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return  # mounted from elsewhere, so the container must not change it
    os.chown(f"/proc/self/fd/{fd}", *owner)
    os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
    os.close(fd)


def open_terminal(root: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Open a new terminal in the container's own devpts and return (master, slave).

    The slave is never opened by its name (CVE-2025-52565).
    """
    master = openat2(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY, IN_ROOT_NO_LINKS)
    if m.filesystem_magic(master) != m.DEVPTS_SUPER_MAGIC or os.fstat(master).st_rdev != PTMX_NUMBER:
        raise PermissionError(errno.EPERM, "is not the container's devpts", "/dev/pts/ptmx")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if size is not None:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
    return master, slave


def mount_console(root: int, slave: int) -> None:
    """Bind the terminal on /dev/console. The file is made without following any symbolic link."""
    dev = openat2(root, "/dev", os.O_PATH | os.O_DIRECTORY, IN_ROOT_NO_LINKS)
    try:
        os.close(openat2(dev, "console", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, _HERE, 0o600))
    except FileExistsError:
        pass
    target = openat2(dev, "console", os.O_PATH | os.O_NOFOLLOW, _HERE)
    kind = stat.S_IFMT(os.fstat(target).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFCHR):
        raise FileExistsError(errno.EEXIST, "something else than a file or a device is in the way", "/dev/console")
    tree = m.clone_tree(slave)
    m.move_mount(tree, target, "/dev/console")
    for fd in (tree, target, dev):
        os.close(fd)
