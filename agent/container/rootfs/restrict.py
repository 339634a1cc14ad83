"""The last changes to the root, after all mounts: read-only and masked paths, its own attributes.

The child executes them in its own mount namespace. Every target is resolved by one openat2(2)
inside the root, and from then on is a descriptor.
"""

import os
import stat
from dataclasses import dataclass

from agent.container.rootfs.operation import Operation
from agent.container.spec.mounts import clean
from agent.linux import mount as m
from agent.linux.openat2 import IN_ROOT_NO_LINKS, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, open_in_root, openat2

ROOT_INODE = 1
"""The inode number of the root of a procfs or sysfs."""


@dataclass(frozen=True, slots=True)
class KernelMount:
    """The procfs or sysfs that a path is in: its mount point and its type (statfs(2))."""

    mountpoint: str
    magic: int


def _open(root: int, path: str, kernel_mount: KernelMount | None) -> int:
    """Return a descriptor of a path to restrict, or -1 if it does not exist.

    `kernel_mount` must still be mounted at its mount point. Another process that can write to the
    root may have renamed that, and the path would then stay unrestricted without notice. Raises
    PermissionError if it has moved.
    """
    try:
        if kernel_mount is None:
            return open_in_root(root, path)
        mount = _kernel_root(root, kernel_mount)
        try:
            return openat2(mount, clean(path)[len(kernel_mount.mountpoint) + 1 :], os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(mount)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _kernel_root(root: int, kernel_mount: KernelMount) -> int:
    try:
        fd = openat2(root, kernel_mount.mountpoint, os.O_PATH | os.O_DIRECTORY, IN_ROOT_NO_LINKS)
    except OSError as error:
        raise PermissionError(1, "what was mounted here has been moved away", kernel_mount.mountpoint) from error
    if m.filesystem_magic(fd) != kernel_mount.magic or os.fstat(fd).st_ino != ROOT_INODE:
        raise PermissionError(1, "what was mounted here has been moved away", kernel_mount.mountpoint)
    return fd


@dataclass(frozen=True, slots=True)
class ReadOnlyPath(Operation):
    """Make a path and all below it read-only. A missing path is ignored."""

    path: str
    kernel_mount: KernelMount | None = None

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, root: int) -> None:
        target = _open(root, self.path, self.kernel_mount)
        if target < 0:
            return
        tree = m.clone_tree(target, recursive=True)
        m.set_attributes(tree, m.MOUNT_ATTR_RDONLY, recursive=True)
        m.move_mount(tree, target, self.path)
        os.close(target)
        os.close(tree)


@dataclass(frozen=True, slots=True)
class MaskPaths(Operation):
    """Mask paths: a directory by one empty read-only tmpfs, anything else by the null device."""

    paths: tuple[tuple[str, KernelMount | None], ...]

    def describe(self) -> str:
        return f"hide {' '.join([path for path, _ in self.paths])}"

    def execute(self, root: int) -> None:
        cover = -1  # the tmpfs; later ones are clones of it
        null = -1
        for path, kernel_mount in self.paths:
            target = _open(root, path, kernel_mount)
            if target < 0:
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                if cover < 0:
                    options = ((b"source", b"tmpfs"), (b"nr_inodes", b"2"), (b"mode", b"0755"))
                    cover = tree = m.new_mount(b"tmpfs", options, _COVER)
                else:
                    tree = m.clone_tree(cover)
            else:
                if null < 0:
                    null = open_null(root)
                tree = m.clone_tree(null)
            m.move_mount(tree, target, path)
            os.close(target)
            if tree != cover:
                os.close(tree)


_COVER = m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC


def open_null(root: int) -> int:
    """Return a descriptor of the container's null device, verified by its numbers (CVE-2025-31133).

    Raises PermissionError if another file is in its place.
    """
    fd = openat2(root, "/dev/null", os.O_PATH | os.O_NOFOLLOW, IN_ROOT_NO_LINKS)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        raise PermissionError(1, "is not the null device", "/dev/null")
    return fd


@dataclass(frozen=True, slots=True)
class ReadOnlyMount(Operation):
    """Make one mount read-only, but not the mounts below it."""

    path: str

    def describe(self) -> str:
        return f"make the mount {self.path} read-only"

    def execute(self, root: int) -> None:
        target = root if self.path == "/" else open_in_root(root, self.path)
        m.set_attributes(target, m.MOUNT_ATTR_RDONLY)
        if target != root:
            os.close(target)


@dataclass(frozen=True, slots=True)
class Propagate(Operation):
    """Set the propagation of the container's root."""

    propagation: int
    recursive: bool

    def describe(self) -> str:
        return "set the root's propagation"

    def execute(self, root: int) -> None:
        m.set_propagation(root, self.propagation, self.recursive)
