"""The child's steps that concern its program: terminal, scheduling, working directory, path.

Nothing is imported here after the fork.
"""

import array
import errno
import fcntl
import os
import socket
import stat

from agent.container.init.plan import ChildPlan
from agent.container.rootfs import devices
from agent.container.spec.process import home_of
from agent.linux import process as p
from agent.linux import procfs
from agent.linux.libc import AT_FDCWD
from agent.linux.numa import set_mempolicy
from agent.linux.openat2 import RESOLVE_NO_MAGICLINKS, openat2, read_regular_file

PASSWD_MAX = 1 << 20
DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def open_terminal(plan: ChildPlan) -> None:
    if not plan.process.terminal:
        for number, fd in enumerate(plan.stdio):
            os.dup2(fd, number, inheritable=True)
        return
    root = plan.root if plan.root >= 0 else os.open("/", os.O_PATH | os.O_DIRECTORY)
    master, slave = devices.open_terminal(root, plan.process.console_size)
    if plan.console:
        devices.mount_console(root, slave)
    fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
    for number in (0, 1, 2):
        os.dup2(slave, number, inheritable=True)
    with socket.socket(fileno=os.dup(plan.control)) as control:
        control.sendmsg([b"terminal"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
    os.close(master)
    os.close(slave)


def chown_tty(plan: ChildPlan) -> None:
    if plan.process.terminal and plan.process.user.uid:
        os.fchown(0, plan.process.user.uid, -1)


def schedule(plan: ChildPlan) -> None:
    process = plan.process
    if process.scheduler is not None:
        s = process.scheduler
        p.sched_setattr(s.policy, s.flags, s.nice, s.priority, s.runtime, s.deadline, s.period)
    if process.io_priority is not None:
        p.ioprio_set_group(process.io_priority)
    if plan.personality is not None:
        p.personality(plan.personality)
    if process.oom_score_adj is not None:
        procfs.write("self/oom_score_adj", b"%d" % process.oom_score_adj)
    if plan.memory_policy is not None:
        set_mempolicy(*plan.memory_policy)
    if plan.affinity:
        os.sched_setaffinity(0, plan.affinity)


def find_program(plan: ChildPlan) -> None:
    """Look the program up in the container.

    This is done now, so that a missing program fails create and not start.
    """
    if not plan.process.args:
        return
    if plan.home_missing:
        home = home_of(read_regular_file(_root_of(plan), "/etc/passwd", PASSWD_MAX), plan.process.user.uid)
        plan.env.append(b"HOME=" + home)
    plan.envp = p.vector(plan.env)
    plan.program = _lookup(os.fsencode(plan.process.args[0]), plan.env)
    plan.header = _header_of(plan.program)


def _root_of(plan: ChildPlan) -> int:
    return plan.root if plan.root >= 0 else os.open("/", os.O_PATH | os.O_DIRECTORY)


def _lookup(name: bytes, env: list[bytes]) -> bytes:
    if b"/" in name:
        _check_executable(name)
        return name
    search = next((entry[5:] for entry in env if entry.startswith(b"PATH=")), DEFAULT_PATH)
    denied: OSError | None = None
    for directory in search.split(b":"):
        candidate = os.path.join(directory or b".", name)
        try:
            _check_executable(candidate)
            return candidate
        except PermissionError as error:
            denied = error
        except OSError:
            continue
    if denied is not None:
        raise denied
    raise FileNotFoundError(errno.ENOENT, "executable file not found in PATH", os.fsdecode(name))


MACHINES = {3: "i386", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv", 258: "loongarch"}
"""The usual name of an ELF file's e_machine (elf.h)."""
HEADER = 20
"""Bytes up to and including e_machine."""


def _header_of(path: bytes) -> bytes:
    """Return the beginning of a program for `not_executable`, b"" if it may not be read.

    Called early, because a filter may forbid it later.
    """
    try:
        fd = openat2(AT_FDCWD, path, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_NO_MAGICLINKS)
    except OSError:
        return b""
    try:
        return os.read(fd, HEADER)
    except OSError:
        return b""
    finally:
        os.close(fd)


def not_executable(header: bytes) -> str:
    """Return why execve(2) fails with ENOEXEC for a program that begins with `header`.

    Only as far as the header shows it.
    """
    if not header:
        return "the file is empty, or cannot be read"
    if len(header) < HEADER or not header.startswith(b"\x7fELF"):
        return "it is neither an ELF program nor a script with #! and its interpreter"
    number = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
    name = MACHINES.get(number, f"machine {number}")
    own = os.uname().machine
    if name == own:
        name = "x32" if own == "x86_64" and header[4] == 1 else f"{own} of another kind (byte order, or shape of the file)"
    return f"it is a program for {name}, and this kernel runs those for {own} alone"


def _check_executable(path: bytes) -> None:
    # Never by /proc/self/exe or a descriptor: until exec these are the agent's own (CVE-2019-5736).
    fd = openat2(AT_FDCWD, path, os.O_PATH, RESOLVE_NO_MAGICLINKS)
    status = os.fstat(fd)
    os.close(fd)
    if stat.S_ISDIR(status.st_mode):
        raise PermissionError(errno.EACCES, "is a directory", os.fsdecode(path))
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))


def enter_cwd(plan: ChildPlan) -> None:
    """Enter the working directory.

    A directory that only the user may enter fails with EACCES here, and is tried again as the user.
    """
    try:
        os.chdir(plan.process.cwd)
    except PermissionError:
        plan.cwd_later = True
        return
    _check_cwd(plan)


def _check_cwd(plan: ChildPlan) -> None:
    try:
        inside = os.getcwdb().startswith(b"/")
    except FileNotFoundError:
        inside = False
    if not inside:
        # A magic link led to a directory outside (CVE-2024-21626).
        raise PermissionError(errno.EPERM, "the working directory is outside the container's root", plan.process.cwd)


def enter_cwd_as_user(plan: ChildPlan) -> None:
    if plan.cwd_later:
        os.chdir(plan.process.cwd)
        _check_cwd(plan)
