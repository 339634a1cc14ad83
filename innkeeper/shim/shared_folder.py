"""The folder that a VM's virtiofsd serves: what is mounted below it appears in the guest.

These mounts are in a mount namespace of the VM's own. In the host's namespace they would keep the
host from removing folders of the user's that have had mounts (rmdir(2): EBUSY). What is mounted is
looked up in the host's namespace nevertheless, since on a host whose root is a private mount the
copy does not have what the host mounts later.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from innkeeper.shim import mounts
from innkeeper.shim.mount_namespace import MountNamespace, in_copy
from innkeeper.shim.pb import containerd_pb2 as pb

SNAPSHOT = "snapshot"
"""A folder beside it, where a snapshot is mounted for a moment."""


class SharedFolder:
    """A new folder and its namespace. `close` must be called."""

    def __init__(self, path: Path) -> None:
        """Make them. Raises OSError."""
        path.mkdir()
        self.path = path
        self.namespace = MountNamespace()
        try:
            self.namespace.call(lambda: mounts.make_shared(path))
        except BaseException:
            self.close()
            raise

    def bind(self, source: Path, target: Path, *, read_only: bool, recursive: bool = True, follows: bool = False) -> None:
        """Bind a folder, or a file, with what is mounted below it.

        Makes the target. Raises OSError. With `recursive`, what is mounted below it is read-only
        too. With `follows`, what the host mounts there later appears too. No mount of this
        namespace travels back to the source.
        """
        is_folder = source.is_dir()
        tree = mounts.clone(source)
        try:
            mounts.set_propagation(tree, mounts.MS_SLAVE if follows else mounts.MS_PRIVATE, source)
            if read_only:
                mounts.set_read_only(tree, source, recursive=recursive)
            self._attach(tree, target, is_folder=is_folder)
        finally:
            os.close(tree)

    def mount_snapshot(self, rootfs: Sequence[pb.Mount], target: Path) -> None:
        """Mount what a snapshotter of containerd asks for.

        Makes the target. Raises OSError and InnkeeperError.
        """
        place = self.path.parent / SNAPSHOT
        place.mkdir(exist_ok=True)
        tree = in_copy(lambda: _mounted(rootfs, place))
        try:
            self._attach(tree, target, is_folder=True)
        finally:
            os.close(tree)

    def _attach(self, tree: int, target: Path, *, is_folder: bool) -> None:
        (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
        if not is_folder:
            target.touch()
        self.namespace.call(lambda: mounts.attach(tree, target))

    def remove(self, folder: Path) -> None:
        """Unmount everything at and below `folder`, and remove it.

        Raises OSError if something stays mounted.
        """
        self.namespace.call(lambda: mounts.unmount(folder))
        mounts.remove(folder)

    def close(self) -> None:
        """Let go of the namespace, whose mounts end with virtiofsd. May be called twice."""
        self.namespace.close()


def _mounted(rootfs: Sequence[pb.Mount], place: Path) -> int:
    """Mount a snapshot, in a namespace for this alone.

    Return the descriptor of a copy. Raises OSError and InnkeeperError.
    """
    for mount in rootfs:
        mounts.mount_snapshot(mount.type, mount.source, mount.options, place)
    tree = mounts.clone(place)
    try:
        mounts.set_propagation(tree, mounts.MS_PRIVATE, place)
    except BaseException:
        os.close(tree)
        raise
    return tree
