"""Mounts in their places, held by descriptor: whatever is renamed meanwhile, by a container with a volume there, it is this mount that is
taken away and nothing else (CVE-2020-2024)."""

import errno
import os
import socket
from typing import NamedTuple, Self

from agent.linux import passed_fds
from agent.linux.libc import AT_FDCWD
from agent.linux.mount import MNT_DETACH, move_mount, set_propagation, umount2
from agent.linux.openat2 import openat2
from agent.storage.mountpoint import STRAIGHT, enter, make_file, open_directory
from agent.storage.options import Options

NAME_MAX = 255


class Mounted(NamedTuple):
    """Descriptors of a mount's root and of the directory that it is in, and its name there. Who has it closes it or takes it away."""

    root: int
    above: int
    name: str

    @classmethod
    def at(cls, path: str) -> Self:
        """What is mounted at `path`. Raises OSError where nothing is, or a link is on the way to it."""
        directory, name = os.path.split(path.rstrip("/"))
        above = openat2(AT_FDCWD, directory, os.O_PATH | os.O_DIRECTORY, STRAIGHT)
        try:
            root = openat2(above, name, os.O_PATH | os.O_NOFOLLOW, STRAIGHT)
        except OSError:
            os.close(above)
            raise
        mounted = cls(root, above, name)
        if _mount_id(root) == _mount_id(above):
            mounted.close()
            raise OSError(errno.EINVAL, "nothing is mounted here", path)
        return mounted

    def take_away(self) -> None:
        """Unmount it and remove the mount point if that is an empty directory. A mount that is gone is no error."""
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
        """Give the descriptors back; the mount stays."""
        os.close(self.root)
        os.close(self.above)

    def send(self, to: socket.socket) -> None:
        """Give it to the process at the other end of a pair of SOCK_SEQPACKET; it stays open here."""
        socket.send_fds(to, [self.name.encode(errors="surrogateescape")], [self.root, self.above])

    @classmethod
    def receive(cls, source: socket.socket) -> Self:
        """What has been sent already. Raises BlockingIOError where nothing has."""
        name, descriptors = passed_fds.receive_fds(source, NAME_MAX, 2, socket.MSG_DONTWAIT)
        root, above = descriptors
        return cls(root, above, name.decode(errors="surrogateescape"))


def mount_on(mount: int, path: str, options: Options, directory: bool = True) -> Mounted:
    """Place a detached mount at `path`, made where missing, then give it its propagation. The descriptor is the result's from now on."""
    try:
        above_path, name = os.path.split(path.rstrip("/"))
        above = open_directory(above_path)
    except BaseException:
        os.close(mount)
        raise
    mounted = Mounted(mount, above, name)
    try:
        target = enter(above, name, path) if directory else make_file(above, name)
        try:
            move_mount(mount, target, path)
        finally:
            os.close(target)
    except BaseException:
        mounted.close()
        raise
    try:
        if options.propagation:
            set_propagation(mount, options.propagation, options.propagate_below)
    except BaseException:
        mounted.take_away()
        raise
    return mounted


def take_away(path: str) -> None:
    """Unmount what is at `path`, as `Mounted.take_away`. A path that is gone, no mount, or reached by a link is left as it is."""
    try:
        mounted = Mounted.at(path)
    except OSError:
        return
    mounted.take_away()


def mounted_type(path: str) -> str | None:
    """Return the filesystem type of the topmost mount at exactly `path`, or None if nothing is mounted there."""
    found = None
    for fields in _mounts_at(path):
        found = fields[fields.index("-") + 1]
    return found


def mount_ids(path: str) -> frozenset[int]:
    """Return the ids of the mounts at exactly `path`."""
    return frozenset([int(fields[0]) for fields in _mounts_at(path)])


def _mounts_at(path: str) -> list[list[str]]:
    """The fields of each mount at exactly `path`, the topmost last (proc_pid_mountinfo(5))."""
    wanted = path.rstrip("/").replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        found = [line.split(" ") for line in file]
    return [fields for fields in found if fields[4] == wanted]


def _mount_id(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line for line in file if line.startswith("mnt_id:"))
