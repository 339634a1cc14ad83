"""Runs on the host: starts a program of another architecture.

QEMU's user mode emulation runs it, in a binfmt_misc of its own.

    foreign_run.py INTERPRETER MAGIC MASK PLAN

A user namespace has a binfmt_misc of its own (Linux 6.7). So the emulator is registered where this
program and its children are, and nowhere else: the host's list stays as it is, and nothing is left
behind. PLAN is JSON:

* `argv`, `env`: the program
* `root`: a command that mounts the folder to run it in and prints its path, or null for the host's
  root
* `release`: the command that unmounts that folder
* `binds`: [path, path in the root, whether it is read-only] each

It uses the standard library only, because it runs with -I -S. It must be root: an ordinary user
cannot give a namespace all user ids.
"""

import ctypes
import json
import os
import subprocess
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 0x1000
LIST = "/proc/sys/fs/binfmt_misc"
ALL_IDS = "0 0 4294967295"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
NETWORK = ("/etc/resolv.conf", "/etc/hosts")

libc = ctypes.CDLL(None, use_errno=True)


def main(interpreter: str, magic: str, mask: str, plan: dict[str, Any]) -> int:
    """Run the program of `plan`. Return its exit status."""
    root = subprocess.run(plan["root"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip() if plan["root"] else ""
    if root:
        furnish(root)
        for source, target, read_only in plan["binds"]:
            bind(source, root + target, read_only)
    child = os.fork()
    if child == 0:
        enter_namespace()
        register(interpreter, magic, mask)
        if root:
            os.chroot(root)
            os.chdir("/")
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])
    _, status = os.waitpid(child, 0)
    if plan["release"]:
        subprocess.run(plan["release"], stdout=subprocess.DEVNULL, check=True)
    return os.waitstatus_to_exitcode(status)


def furnish(root: str) -> None:
    """Mount what programs expect below `root`: /proc, common devices, the host's resolver files."""
    os.makedirs(f"{root}/proc", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.makedirs(f"{root}/dev", exist_ok=True)
    mount("dev", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}")
    for name, target in LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/shm")
    os.chmod(f"{root}/dev/shm", 0o1777)
    for path in filter(os.path.exists, NETWORK):
        bind(os.path.realpath(path), root + path, read_only=True)


def bind(source: str, target: str, read_only: bool = False) -> None:
    """Bind a file or folder, with what it is bound to if that is not there."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, MS_BIND)
    if read_only:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def enter_namespace() -> None:
    """Enter user and mount namespaces in which every user id is the same as outside.

    Another process writes the list of ids, because in the new namespace nobody may name those of
    others.
    """
    (entered, told), (written, ready) = os.pipe(), os.pipe()
    owner = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.read(entered, 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{owner}/{name}", "w") as file:
                file.write(ALL_IDS)
        os.write(ready, b"1")
        os._exit(0)
    os.close(ready)
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare(CLONE_NEWUSER)")
    os.write(told, b"1")
    if not os.read(written, 1):
        sys.exit("the ids of a user namespace could not be written")
    os.waitpid(helper, 0)
    for descriptor in (entered, told, written):
        os.close(descriptor)


def register(interpreter: str, magic: str, mask: str) -> None:
    """Register the interpreter for files that begin with `magic`, under `mask`.

    The kernel's admin-guide/binfmt-misc describes the format. Both are in hexadecimal digits. With
    F, the interpreter is opened now: a root without it runs its programs.
    """
    check(libc.mount(b"binfmt_misc", LIST.encode(), b"binfmt_misc", 0, None), "mount a binfmt_misc of its own (Linux 6.7 and later)")
    escaped = ["".join(f"\\x{byte:02x}" for byte in bytes.fromhex(text)) for text in (magic, mask)]
    with open(f"{LIST}/register", "w") as file:
        file.write(f":innkeeper:M::{escaped[0]}:{escaped[1]}:{interpreter}:OCF")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Call mount(2). None stands for a null pointer."""
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    check(libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data is not None else None), f"mount {target}")


def check(result: int, what: str) -> None:
    """Exit with a message if a call failed."""
    if result != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
