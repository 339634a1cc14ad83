"""Mounts held by descriptor, so that unmounting hits exactly the mount that was made.

A container with a volume at the place can rename a directory of the path, or put a symbolic link
there, between mount and unmount. An unmount by path would then detach another mount of the guest
(CVE-2020-2024). Here the mount's root and its parent directory are opened when the mount is made,
without following links, and the unmount goes through those descriptors.
"""

import errno
import os
import socket
from typing import NamedTuple, Self

from agent.linux import passed_fds
from agent.linux.fd import OwnedFd
from agent.linux.mount import MNT_DETACH, move_mount, set_propagation, umount2
from agent.linux.mount_table import mounts_at
from agent.linux.openat2 import NO_LINKS, open_without_links, openat2
from agent.storage.mountpoint import enter, make_file, open_directory
from agent.storage.options import Options

NAME_MAX = 255


class Mounted(NamedTuple):
    """A mount: O_PATH descriptors of its root and of its parent directory, and its name there.

    The holder owns the descriptors and must call `close` or `unmount`.
    """

    root: int
    above: int
    name: str

    @classmethod
    def at(cls, path: str) -> Self:
        """Return the mount at `path`.

        Raises OSError: EINVAL if nothing is mounted there, ELOOP for a symbolic link on the way.
        """
        directory, name = os.path.split(path.rstrip("/"))
        above = open_without_links(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            root = openat2(above, name, os.O_PATH | os.O_NOFOLLOW, NO_LINKS)
        except OSError:
            os.close(above)
            raise
        mounted = cls(root, above, name)
        # Same mount id above and below: `path` is an ordinary directory of the parent's mount.
        if _mount_id(root) == _mount_id(above):
            mounted.close()
            raise OSError(errno.EINVAL, "nothing is mounted here", path)
        return mounted

    def unmount(self) -> None:
        """Unmount the mount, remove its mount point if that is an empty directory, and close.

        It is no error if the mount is already gone. Raises OSError.
        """
        # umount2(2) takes only a path. The magic link in /proc/self/fd resolves to the mount that
        # the descriptor refers to, whatever its name is now. EINVAL: it is no longer mounted.
        try:
            umount2(f"/proc/self/fd/{self.root}", MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        try:
            os.rmdir(self.name, dir_fd=self.above)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY, errno.EROFS):
                raise
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptors. The mount stays."""
        os.close(self.root)
        os.close(self.above)

    def send(self, to: socket.socket) -> None:
        """Send the descriptors and the name over a SOCK_SEQPACKET socket. They stay open here."""
        socket.send_fds(to, [self.name.encode(errors="surrogateescape")], [self.root, self.above])

    @classmethod
    def receive(cls, source: socket.socket) -> Self:
        """Receive a mount that has been sent. Raises BlockingIOError if nothing is queued."""
        name, descriptors = passed_fds.receive_fds(source, NAME_MAX, 2, socket.MSG_DONTWAIT)
        root, above = descriptors
        return cls(root, above, name.decode(errors="surrogateescape"))


def mount_on(mount: int, path: str, options: Options, directory: bool = True) -> Mounted:
    """Attach a detached mount at `path`, which is created if missing, and set its propagation.

    Takes over the descriptor `mount`: it belongs to the result, and is closed on failure.
    """
    try:
        above_path, name = os.path.split(path.rstrip("/"))
        above = open_directory(above_path)
    except BaseException:
        os.close(mount)
        raise
    mounted = Mounted(mount, above, name)
    try:
        with OwnedFd(enter(above, name, path) if directory else make_file(above, name)) as target:
            move_mount(mount, target, path)
    except BaseException:
        mounted.close()
        raise
    try:
        if options.propagation:
            set_propagation(mount, options.propagation, options.propagate_below)
    except BaseException:
        mounted.unmount()
        raise
    return mounted


def unmount(path: str) -> None:
    """Unmount `path` as `Mounted.unmount` does.

    Does nothing if the path is missing, is not a mount or has a symbolic link in it.
    """
    try:
        mounted = Mounted.at(path)
    except OSError:
        return
    mounted.unmount()


def mounted_type(path: str) -> str | None:
    """Return the filesystem type of the topmost mount at exactly `path`, or None."""
    return next((entry.filesystem for entry in reversed(mounts_at(path))), None)


def mount_ids(path: str) -> frozenset[int]:
    """Return the ids of the mounts at exactly `path`."""
    return frozenset(entry.id for entry in mounts_at(path))


def _mount_id(fd: int) -> str:
    """Return the `mnt_id:` line of a descriptor (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line for line in file if line.startswith("mnt_id:"))
