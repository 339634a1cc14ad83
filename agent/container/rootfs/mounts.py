"""The mount operations: what is mounted where inside the container's root.

The parent makes the plan and opens what must be seen from outside: the root, and the sources of
bind mounts. The child executes the plan in its own mount namespace. Every target is resolved by one
openat2(2) inside the root, and from then on is a descriptor: a process that can write to the root
or to a shared volume may swap a component of the path at any moment.
"""

import errno
import os
import stat
from dataclasses import dataclass

from agent.container.rootfs.copy_up import fill
from agent.container.rootfs.operation import Operation
from agent.container.spec.mounts import PROC_FILES, Mount, clean
from agent.linux import mount as m
from agent.linux.libc import AT_FDCWD, AT_RECURSIVE
from agent.linux.mount_options import ATTRIBUTES, RECURSIVE_ATTRIBUTES
from agent.linux.openat2 import IN_ROOT_NO_LINKS, make_directory_in_root, make_file_in_root, open_in_root

# Filesystems whose mount point must be a real directory at exactly that path, without a symbolic
# link in it (CVE-2019-19921, CVE-2023-27561).
STRAIGHT_TYPES = frozenset(("proc", "sysfs", "cgroup", "cgroup2"))


@dataclass(frozen=True, slots=True)
class MountRoot(Operation):
    """Mount the root's detached tree on its own directory.

    Hooks look for it there, and pivot_root(2) takes it from there. `propagation` is MS_SLAVE
    (mounts made outside appear inside) or MS_PRIVATE. It is never shared: a clone of a shared mount
    is its peer, so mounts made inside would appear outside, and pivot_root(2) refuses it. What the
    specification calls shared is made so at the end.
    """

    path: str
    propagation: int

    def describe(self) -> str:
        return f"mount the container's root on {self.path}, nothing of it seen outside"

    def execute(self, root: int) -> None:
        m.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=self.propagation)
        m.set_propagation(root, self.propagation, recursive=True)
        mountpoint = self._original_directory(root)
        if mountpoint < 0:
            m.move_mount_path(root, "/")
            return
        m.move_mount(root, mountpoint, self.path)
        os.close(mountpoint)

    def _original_directory(self, root: int) -> int:
        """Return the directory that the tree was cloned from, or -1.

        The path may lead elsewhere by now. Or it may be out of reach: in a joined mount namespace,
        or for a user who may not traverse it. Then the tree is mounted over `/`, which always
        exists. Only the mount point is taken from the path.
        """
        try:
            mountpoint = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return -1
        ours, found = os.fstat(root), os.fstat(mountpoint)
        if (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino):
            return mountpoint
        os.close(mountpoint)
        return -1


@dataclass(frozen=True, slots=True)
class NewMount(Operation):
    """A new instance of a filesystem.

    `fallback` is a tree to bind if the kernel does not permit a user namespace to make an instance.
    """

    mount: Mount
    filesystem: str
    read_only_later: bool = False
    fallback: int = -1

    def describe(self) -> str:
        words = [*attribute_words(self.mount), *[key if value is None else f"{key}={value}" for key, value in self.mount.data]]
        filled = ", filled from what is there" if self.mount.copy_up else ""
        return f"mount {self.filesystem} on {self.mount.destination} ({','.join(words)}){filled}"

    def execute(self, root: int) -> None:
        mount = self.mount
        more = self._mode_option(root)
        target = self._target(root)
        _check_not_in_proc(target, mount)
        attributes = mount.set | mount.recursive_set
        now = attributes & ~m.MOUNT_ATTR_RDONLY if self.read_only_later or mount.copy_up else attributes
        tree = self._make(now, more)
        if mount.copy_up:
            fill(target, tree)
            m.set_attributes(tree, attributes)
        _attach(tree, target, mount)

    def _mode_option(self, root: int) -> "tuple[tuple[bytes, bytes], ...]":
        """Return the option that gives a tmpfs the mode of the directory that it covers.

        As runc does. Returns no option if the mount has a mode, or if the directory does not exist
        yet. Then the kernel's default of 1777 applies.
        """
        if self.filesystem != "tmpfs" or any(key == "mode" for key, _ in self.mount.data):
            return ()
        try:
            mountpoint = open_in_root(root, self.mount.destination)
        except OSError:
            return ()
        mode = stat.S_IMODE(os.fstat(mountpoint).st_mode)
        os.close(mountpoint)
        return ((b"mode", b"%o" % mode),)

    def _target(self, root: int) -> int:
        destination = self.mount.destination
        if self.filesystem not in STRAIGHT_TYPES:
            return make_directory_in_root(root, destination)
        try:
            return make_directory_in_root(root, destination, resolve=IN_ROOT_NO_LINKS)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise OSError(error.errno, f"{self.filesystem} must be mounted on ordinary directory", destination) from error

    def _make(self, attributes: int, more: "tuple[tuple[bytes, bytes], ...]") -> int:
        mount = self.mount
        options = [*more, *[(os.fsencode(key), None if value is None else os.fsencode(value)) for key, value in mount.data]]
        if mount.source:
            options.insert(0, (b"source", os.fsencode(mount.source)))
        try:
            return m.new_mount(os.fsencode(self.filesystem), tuple(options), attributes)
        except PermissionError:
            if self.fallback < 0:
                raise
        m.set_propagation(self.fallback, m.MS_SLAVE, recursive=True)
        m.set_attributes(self.fallback, attributes | m.MOUNT_ATTR_RDONLY, recursive=True)
        return self.fallback


@dataclass(frozen=True, slots=True)
class BindMount(Operation):
    """A bind mount of a tree that the parent cloned before the fork.

    Its source is resolved once, in the parent's mount namespace.
    """

    mount: Mount
    tree: int
    is_directory: bool

    def describe(self) -> str:
        mount = self.mount
        recursively = " and all below" if mount.recursive else ""
        owners = " with translated owners" if mount.idmap or mount.uid_mappings else ""
        return f"bind {mount.source}{recursively} on {mount.destination} ({','.join(attribute_words(mount))}){owners}"

    def execute(self, root: int) -> None:
        bind(root, self.mount, self.tree, self.is_directory)


@dataclass(frozen=True, slots=True)
class BindFromRoot(Operation):
    """A bind mount whose source is inside the container's root.

    An earlier mount of the list may put the source there, so it is resolved when its turn comes.
    """

    mount: Mount
    source: str

    def describe(self) -> str:
        mount = self.mount
        return f"bind {self.source} of the container's root on {mount.destination} ({','.join(attribute_words(mount))})"

    def execute(self, root: int) -> None:
        try:
            source = open_in_root(root, self.source)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.mount.source) from error
        tree = m.clone_tree(source, recursive=self.mount.recursive)
        os.close(source)
        bind(root, self.mount, tree, stat.S_ISDIR(os.fstat(tree).st_mode))


def bind(root: int, mount: Mount, tree: int, is_directory: bool) -> None:
    """Mount a cloned tree with the attributes that the mount asks for. Raises OSError."""
    target = make_directory_in_root(root, mount.destination) if is_directory else make_file_in_root(root, mount.destination)
    if not is_directory and stat.S_ISDIR(os.fstat(target).st_mode):
        raise NotADirectoryError(20, "the destination is a directory, the source is not", mount.destination)
    if clean(mount.destination) == "/proc":
        _check_is_procfs_root(tree, mount.destination)
    else:
        _check_not_in_proc(target, mount)
    if (mount.propagation | mount.recursive_propagation) & m.MS_SHARED == 0:
        m.set_propagation(tree, m.MS_SLAVE, recursive=True)
    if mount.recursive_set or mount.recursive_clear:
        m.set_attributes(tree, mount.recursive_set, mount.recursive_clear, recursive=True)
    if mount.set or mount.clear:
        m.set_attributes(tree, mount.set, mount.clear)
    source = os.fstat(tree)
    _attach(tree, target, mount)
    if clean(mount.destination) in PROC_FILES:
        _check_covered(root, mount, source)


@dataclass(frozen=True, slots=True)
class Remount(Operation):
    """Change the mount at a destination: its attributes, and with options the filesystem's too."""

    mount: Mount

    def describe(self) -> str:
        words = [*attribute_words(self.mount), *[key if value is None else f"{key}={value}" for key, value in self.mount.data]]
        return f"change the mount on {self.mount.destination} ({','.join(words)})"

    def execute(self, root: int) -> None:
        mount = self.mount
        target = open_in_root(root, mount.destination)
        try:
            if mount.data:
                m.reconfigure(
                    target, tuple([(os.fsencode(key), None if value is None else os.fsencode(value)) for key, value in mount.data])
                )
            if mount.recursive_set or mount.recursive_clear:
                m.set_attributes(target, mount.recursive_set, mount.recursive_clear, recursive=True)
            # Also without any attributes: this fails if nothing is mounted here.
            m.set_attributes(target, mount.set, mount.clear)
            _propagate(target, mount)
        except OSError as error:
            raise OSError(error.errno, error.strerror, mount.destination) from error
        finally:
            os.close(target)


def attribute_words(mount: Mount) -> list[str]:
    """Return the names of the attributes that a mount gets."""
    words = [word for word, (bit, _clear) in ATTRIBUTES.items() if bit and mount.set & bit]
    return words + [word for word, (bit, _clear) in RECURSIVE_ATTRIBUTES.items() if bit and mount.recursive_set & bit]


def _attach(tree: int, target: int, mount: Mount) -> None:
    m.move_mount(tree, target, mount.destination)
    os.close(target)
    _propagate(tree, mount)
    os.close(tree)


def _propagate(tree: int, mount: Mount) -> None:
    if mount.propagation:
        m.set_propagation(tree, mount.propagation)
    if mount.recursive_propagation:
        m.set_propagation(tree, mount.recursive_propagation, recursive=True)


def _check_not_in_proc(target: int, mount: Mount) -> None:
    """Raise PermissionError if the target is in a procfs, except for the allowed files.

    Checked on the descriptor, so it does not matter which link led there (CVE-2019-16884).
    """
    mountpoint = clean(mount.destination)
    if mountpoint in PROC_FILES or (mountpoint == "/proc" and mount.type == "proc"):
        return
    if m.filesystem_magic(target) == m.PROC_SUPER_MAGIC:
        raise PermissionError(1, "is in a procfs", mount.destination)


def _check_covered(root: int, mount: Mount, source: os.stat_result) -> None:
    """Raise PermissionError if the mount is not visible at its destination.

    The kernel looks up some entries of procfs anew each time, which drops a mount on them.
    """
    mountpoint = open_in_root(root, mount.destination)
    found = os.fstat(mountpoint)
    os.close(mountpoint)
    if (found.st_dev, found.st_ino) != (source.st_dev, source.st_ino):
        raise PermissionError(1, "the kernel keeps no mount on this file", mount.destination)


def _check_is_procfs_root(tree: int, destination: str) -> None:
    if m.filesystem_magic(tree) != m.PROC_SUPER_MAGIC or os.fstat(tree).st_ino != 1:
        raise PermissionError(1, "only the root of a procfs may be bound here", destination)
