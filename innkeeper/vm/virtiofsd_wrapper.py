"""Make a mount namespace, bind the sources into it, then become virtiofsd.

`virtiofsd` runs this file as a program of its own:

    virtiofsd_wrapper.py OWNER-PID NAMESPACE MOUNTPOINT COUNT [ro|rw NAME SOURCE]... COMMAND...

NAMESPACE is the path of the mount namespace where the sources are, or empty for that of the owner.
NAME is the folder below MOUNTPOINT that a source is bound to. The empty name is MOUNTPOINT itself.
It uses the standard library only and none of our modules, because it runs with -I -S. Without root
it makes a user namespace first.
"""

import ctypes
import os
import signal
import stat
import sys

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
SYS_MOUNT_SETATTR = 442
PR_SET_PDEATHSIG = 1
PID_FILES = "/run/virtiofsd"

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Exit with a message if a system call failed."""
    if result < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def die_with(owner: int) -> None:
    """Arrange to be killed when the thread that started us ends. Exit now if it already has.

    The parent is checked after prctl: an owner that died before it sends no signal.
    """
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != owner:
        sys.exit("the owner has gone")


def enter(namespace: str) -> None:
    """Enter a mount namespace, and stay in the working directory, which is in it too."""
    folder = os.getcwd()
    descriptor = os.open(namespace, os.O_RDONLY)
    check(libc.setns(descriptor, CLONE_NEWNS), f"setns({namespace})")
    os.close(descriptor)
    os.chdir(folder)


def new_namespace() -> None:
    """Enter a mount namespace whose mounts no other process sees."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        check(libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    else:
        check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare(CLONE_NEWUSER)")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    check(libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None), "mount(MS_SLAVE)")


def own_pid_files() -> None:
    """Mount an empty folder for the pid file of QEMU 7.2's virtiofsd.

    It names the file by its socket alone, so another VM's file would be there, locked.
    """
    if os.geteuid() == 0:
        os.makedirs(PID_FILES, mode=0o700, exist_ok=True)
        check(libc.mount(b"pid", PID_FILES.encode(), b"tmpfs", 0, b"size=64k,mode=700"), f"mount tmpfs at {PID_FILES}")


def bind_all(paths: list[tuple[str, str, str]], mountpoint: str) -> None:
    """Bind each (mode, name, source) below `mountpoint`, or a single unnamed folder to it.

    A file goes into its folder under its own name.
    """
    alone = paths[0][1] == "" and stat.S_ISDIR(os.stat(paths[0][2]).st_mode)
    if not alone:
        # The folders around the sources must not be writable, or a guest could fill the host's
        # memory.
        check(libc.mount(b"share", os.fsencode(mountpoint), b"tmpfs", 0, b"size=1m,mode=755"), f"mount tmpfs at {mountpoint}")
    for mode, name, source in paths:
        folder = os.path.join(mountpoint, name) if name else mountpoint
        os.makedirs(folder, mode=0o755, exist_ok=True)
        bind(source, folder, mode == "ro")
    if not alone:
        set_read_only(mountpoint, recursive=False)


def bind(source: str, folder: str, read_only: bool) -> None:
    """Bind `source` to `folder`, or a file to an empty file of its name created there."""
    target = folder
    if not stat.S_ISDIR(os.stat(source).st_mode):
        target = os.path.join(folder, os.path.basename(source))
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))
    check(libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None), f"bind {source}")
    if read_only:
        set_read_only(target, recursive=True)


def set_read_only(path: str, recursive: bool) -> None:
    """Make the mount at `path` read-only, and with `recursive` those below it.

    Uses mount_setattr(2) (Linux 5.12).
    """
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    check(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), flags, attributes, 32), f"mount_setattr {path}")


def main() -> None:
    """Run the program that the head of this file describes."""
    owner, namespace, mountpoint, count, *rest = sys.argv[1:]
    paths = [(rest[at], rest[at + 1], rest[at + 2]) for at in range(0, 3 * int(count), 3)]
    command = rest[3 * int(count) :]
    die_with(int(owner))
    if namespace:
        enter(namespace)
    new_namespace()
    own_pid_files()
    bind_all(paths, mountpoint)
    os.execv(command[0], command)


main()
