"""From a spec to the operations on mounts, devices and paths: the parent's half.

Opens what is outside of the container's root. Changes nothing.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace

from agent.container.fd_set import FdSet
from agent.container.rootfs.devices import DEFAULT_PATHS, DefaultDevices, MakeDevice
from agent.container.rootfs.idmap import Mappings, mapped_namespace
from agent.container.rootfs.mounts import BindFromRoot, BindMount, MountRoot, NewMount, Remount
from agent.container.rootfs.operation import Operation
from agent.container.rootfs.restrict import KernelMount, MaskPaths, Propagate, ReadOnlyMount, ReadOnlyPath
from agent.container.spec import labels
from agent.container.spec.document import Spec
from agent.container.spec.linux import Device
from agent.container.spec.mounts import Mount, clean
from agent.errors import Refused
from agent.linux import mount as m
from agent.linux.libc import AT_RECURSIVE
from agent.linux.mount_options import PROPAGATION

CGROUP_TYPES = ("cgroup", "cgroup2")
KERNEL_TYPES = {"proc": m.PROC_SUPER_MAGIC, "sysfs": m.SYSFS_MAGIC}
SYSFS = "/sys"


class MountPlan:
    """Makes the operations of one spec. `user_fd` is the user namespace to join, -1 for none."""

    def __init__(self, spec: Spec, cgroup_path: str, fd_set: FdSet, user_fd: int = -1) -> None:
        self._spec = spec
        self._cgroup_path = cgroup_path
        self._fd_set = fd_set
        self._user_fd = user_fd
        self._namespaces: dict[tuple[Mappings, Mappings], int] = {}
        self.warnings: list[str] = []

    def mounts(self) -> list[Operation]:
        """Return the operations that mount the root first, then the mounts in their order."""
        follows = self._spec.linux.rootfs_propagation in ("", "slave", "rslave")
        operations: list[Operation] = [MountRoot(self._spec.root_path, m.MS_SLAVE if follows else m.MS_PRIVATE)]
        before: list[str] = []
        for mount in self._spec.mounts:
            operations.append(self._mount(mount, before))
            before.append(clean(mount.destination))
        return operations

    def _mount(self, mount: Mount, before: Sequence[str] = ()) -> Operation:
        mount = labels.with_context(mount, self._spec.linux.mount_label)
        if mount.remount:
            return Remount(mount)
        if mount.bind:
            source = self._source_in_root(mount, before)
            return BindFromRoot(mount, source) if source else self._bind(mount, mount.source)
        if mount.type in CGROUP_TYPES:
            return self._cgroup(mount)
        if mount.type == "sysfs":
            return NewMount(mount, "sysfs", fallback=self._sysfs_fallback(mount))
        return NewMount(mount, mount.type, read_only_later=clean(mount.destination) == "/dev")

    def _cgroup(self, mount: Mount) -> Operation:
        """Return the operation for a cgroup mount.

        It is read-only unless the spec asks otherwise. Without a cgroup namespace only the
        container's own cgroup is visible.
        """
        if not mount.clear & m.MOUNT_ATTR_RDONLY:
            mount = replace(mount, set=mount.set | m.MOUNT_ATTR_RDONLY)
        namespaces = self._spec.linux.namespaces
        if namespaces.get("cgroup", "") is not None:
            return self._bind(replace(mount, data=()), self._cgroup_path)
        fallback = self._tree(mount, self._cgroup_path, 0) if "user" in namespaces else -1
        return NewMount(mount, "cgroup2", fallback=fallback)

    def _sysfs_fallback(self, mount: Mount) -> int:
        """Return a copy of the agent's sysfs, or -1 if the container can mount its own.

        A user namespace may mount sysfs only with a network namespace of its own. Otherwise the
        agent's is bound, read-only.
        """
        namespaces = self._spec.linux.namespaces
        if "user" not in namespaces or namespaces.get("net", "") is None:
            return -1
        self.warnings.append(f"{mount.field}: no network namespace of the container's own, the guest's sysfs is bound read-only")
        return self._tree(mount, SYSFS, AT_RECURSIVE)

    def _source_in_root(self, mount: Mount, before: Sequence[str]) -> str:
        """Return the source's path in the container's root if earlier mounts put it there, or "".

        Mounts are made in their order: one of those `before` may provide or cover what a later one
        takes. The parent, outside, makes the mounts with translated owners, and refuses them if the
        source is missing.
        """
        root = os.path.realpath(self._spec.root_path)
        source = os.path.realpath(mount.source)
        if root == "/" or not source.startswith(f"{root}/") or mount.idmap or mount.uid_mappings:
            return ""
        inside = source[len(root) :]
        covered = any(inside == mountpoint or inside.startswith(f"{mountpoint}/") for mountpoint in before)
        return inside if covered or (before and not os.path.exists(source)) else ""

    def _bind(self, mount: Mount, source: str) -> BindMount:
        tree = self._tree(mount, source, AT_RECURSIVE if mount.recursive else 0)
        if self._fd_set.dry:
            return BindMount(mount, tree, True)
        if mount.idmap or mount.uid_mappings:
            self._translate(mount, tree)
        return BindMount(mount, tree, stat.S_ISDIR(os.fstat(tree).st_mode))

    def _tree(self, mount: Mount, source: str, flags: int) -> int:
        try:
            return self._fd_set.tree(source, flags)
        except OSError as error:
            raise Refused(f"{mount.field}.source", f"{source}: {os.strerror(error.errno or 0)}") from error

    def _translate(self, mount: Mount, tree: int) -> None:
        """Translate the owners of a tree by the mount's mappings. Raises Refused.

        The child could not: the filesystem belongs to the agent's user namespace.
        """
        try:
            m.set_idmap(tree, self._owners(mount), mount.idmap_recursive)
        except OSError as error:
            raise Refused(f"{mount.field}.uidMappings", f"{mount.source}: {error.strerror}") from error

    def _owners(self, mount: Mount) -> int:
        linux = self._spec.linux
        uids, gids = mount.uid_mappings or linux.uid_mappings, mount.gid_mappings or linux.gid_mappings
        if not uids:
            return self._user_fd
        fd = self._namespaces.get((uids, gids))
        if fd is None:
            fd = self._namespaces[uids, gids] = self._fd_set.add(mapped_namespace(uids, gids))
        return fd

    # devices

    def devices(self) -> list[Operation]:
        """Return the operations that make the default nodes and those of the spec.

        None is made in a /dev that is not the container's own.
        """
        linux = self._spec.linux
        wanted = [device for device in linux.devices if device.path not in DEFAULT_PATHS and device.path != "/dev/ptmx"]
        if any(_is_shared_dev(mount) for mount in self._spec.mounts):
            self.warnings += [f"{device.field}: not made, /dev is not the container's own" for device in wanted if _is_in_dev(device)]
            return [MakeDevice(device, self._source_of(device)) for device in wanted if not _is_in_dev(device)]
        if "user" not in linux.namespaces:
            return [DefaultDevices(), *[MakeDevice(device) for device in wanted]]
        # In a user namespace mknod(2) of a device is not permitted. The agent's own nodes are bound
        # instead.
        default = DefaultDevices(tuple([(path, self._node(path, path)) for path in sorted(DEFAULT_PATHS)]))
        return [default, *[MakeDevice(device, self._node_of(device)) for device in wanted]]

    def _source_of(self, device: Device) -> int:
        return self._node_of(device) if "user" in self._spec.linux.namespaces else -1

    def _node_of(self, device: Device) -> int:
        if device.type == "p":
            return -1
        fd = self._node(device.path, device.field)
        if fd >= 0 and os.fstat(fd).st_rdev != os.makedev(device.major, device.minor):
            raise Refused(device.field, f"{device.path} is another device here, and a user namespace cannot make devices")
        return fd

    def _node(self, path: str, field: str) -> int:
        try:
            return self._fd_set.tree(path)
        except OSError as error:
            raise Refused(field, f"{path}: {os.strerror(error.errno or 0)}, and a user namespace cannot make devices") from error

    # paths

    def restrictions(self) -> list[Operation]:
        """Return the operations that make paths read-only and mask them, after all mounts."""
        linux = self._spec.linux
        operations: list[Operation] = []
        operations += [ReadOnlyPath(path, self._kernel_mount(path)) for path in linux.readonly_paths]
        if linux.masked_paths:
            operations.append(MaskPaths(tuple([(path, self._kernel_mount(path)) for path in linux.masked_paths])))
        for mount in self._spec.mounts:
            if not mount.bind and clean(mount.destination) == "/dev" and mount.set & m.MOUNT_ATTR_RDONLY:
                operations.append(ReadOnlyMount("/dev"))
        if self._spec.root_readonly:
            operations.append(ReadOnlyMount("/"))
        word = linux.rootfs_propagation
        if word.removeprefix("r") in ("shared", "unbindable"):
            # Last: an unbindable mount cannot be cloned, so nothing below it could be made
            # read-only or masked any more.
            operations.append(Propagate(PROPAGATION[word.removeprefix("r")], word.startswith("r")))
        return operations

    def _kernel_mount(self, path: str) -> KernelMount | None:
        """Return the procfs or sysfs mount that a path to restrict is below, or None."""
        for mount in self._spec.mounts:
            mountpoint = clean(mount.destination)
            magic = m.PROC_SUPER_MAGIC if mountpoint == "/proc" else KERNEL_TYPES.get(mount.type)
            if magic is not None and clean(path).startswith(f"{mountpoint}/"):
                return KernelMount(mountpoint, magic)
        return None


def _is_shared_dev(mount: Mount) -> bool:
    """Return whether a mount puts a /dev there that others share: a bind mount or the devtmpfs."""
    return clean(mount.destination) == "/dev" and not mount.remount and (mount.bind or mount.type == "devtmpfs")


def _is_in_dev(device: Device) -> bool:
    return device.path.startswith("/dev/")
