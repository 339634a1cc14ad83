"""Processes and namespaces: clone3(2), setns(2), unshare(2), pidfds, prctl(2), execve(2).

python-prctl does the prctl calls that it knows. The others (the ambient set) go by number.
execve(2) takes prepared vectors.
"""

import ctypes
import os
import struct

import prctl

from agent.linux.libc import NUMBERS, call, get_errno, raw, s32, u32, ulong

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    # The public module converts each of the 64 numbers to an enum member and back. That costs 70 us
    # a call, for every container.
    import _signal as signal

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

CLOSE_RANGE_CLOEXEC = 4
P_PIDFD = 3
NS_GET_NSTYPE = 0xB703

PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# The names of /proc/PID/ns and the clone flag of each kind of namespace.
NAMESPACE_FLAGS = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "mnt": CLONE_NEWNS,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "net": CLONE_NEWNET,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}


_CLONE_ARGS = struct.Struct("=QQ16xQ40xQ")
"""`struct clone_args`: flags, pidfd, exit_signal, cgroup"""


def clone3(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork. Return (pid, pidfd) in the parent and (0, -1) in the child (clone3(2)).

    The child starts in `cgroup` (a descriptor of its directory) if given, so there is no moment in
    which it is outside. None of the interpreter's fork hooks run in the child: from there to exec
    only system calls are safe. Signal handlers are reset in the child, ignored signals stay
    ignored. The caller must have one thread and must have blocked all signals. With CLONE_PARENT
    the child is the caller's sibling, and its exit signal is the caller's own.
    """
    pidfd = s32(-1)
    flags |= CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (0 if cgroup is None else CLONE_INTO_CGROUP)
    exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD
    arguments = _CLONE_ARGS.pack(flags, ctypes.addressof(pidfd), exit_signal, cgroup or 0)
    pid = call("clone3", arguments, ctypes.c_size_t(len(arguments)))
    return pid, pidfd.value if pid else -1


_EVERY_SIGNAL = signal.valid_signals()


class SignalsBlocked:
    """Context manager that blocks all signals.

    A child forked inside never runs one of the parent's handlers.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_SETMASK, _EVERY_SIGNAL)

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def setns(fd: int, kinds: int) -> None:
    """Join the namespace of `fd`, or those of `kinds` if `fd` is a pidfd (setns(2))."""
    call("setns", s32(fd), s32(kinds))


def unshare(flags: int) -> None:
    """Move the caller into new namespaces (unshare(2))."""
    call("unshare", ulong(flags))


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Send a signal to a process (pidfd_send_signal(2)).

    Raises ProcessLookupError if the process has ended.
    """
    call("pidfd_send_signal", s32(pidfd), s32(signum), None, u32(0))


def kill(pidfd: int) -> None:
    """Send SIGKILL to a process. Does nothing if it has ended."""
    try:
        pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a close-on-exec copy of another process's descriptor (pidfd_getfd(2))."""
    return call("pidfd_getfd", s32(pidfd), s32(fd), u32(0))


def close_range_cloexec(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec (close_range(2))."""
    call("close_range", u32(first), u32(0xFFFFFFFF), u32(CLOSE_RANGE_CLOEXEC))


def close_all_but(keep: "list[int]") -> None:
    """Close every descriptor from 3 on that is not in `keep`, which is sorted (close_range(2))."""
    first = 3
    for fd in keep:
        if fd > first:
            call("close_range", u32(first), u32(fd - 1), u32(0))
        first = max(first, fd + 1)
    call("close_range", u32(first), u32(0xFFFFFFFF), u32(0))


def wait_status(info: "os.waitid_result") -> int:
    """Return the exit status as a shell shows it: the status, or 128 + the signal's number."""
    return info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status


def reset_ignored_signals() -> None:
    """Reset every ignored signal to its default action.

    Python ignores SIGPIPE and SIGXFSZ, and an ignored signal stays ignored across execve(2).
    """
    for signum in _EVERY_SIGNAL:
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


def unblock_signals() -> None:
    """Unblock all signals."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def set_dumpable(dumpable: bool) -> None:
    """Set PR_SET_DUMPABLE. With 0 other processes cannot trace or read this one."""
    prctl.set_dumpable(int(dumpable))


def set_keepcaps(keep: bool) -> None:
    """Set PR_SET_KEEPCAPS: permitted capabilities survive the change of user."""
    prctl.set_keepcaps(int(keep))


def set_parent_death_signal(signum: int) -> None:
    """Set PR_SET_PDEATHSIG: the kernel sends the caller the signal when its parent thread ends."""
    prctl.set_pdeathsig(signum)


def set_child_subreaper() -> None:
    """Set PR_SET_CHILD_SUBREAPER: orphaned descendants become children of this process.

    Without it they would become children of init.
    """
    prctl.set_child_subreaper(1)


def set_no_new_privs() -> None:
    """Set PR_SET_NO_NEW_PRIVS, which cannot be undone."""
    prctl.set_no_new_privs(1)


def drop_bounding(capability: int) -> None:
    """Drop a capability from the bounding set (PR_CAPBSET_DROP).

    Takes a number, so that a capability newer than python-prctl's table is dropped as well.
    """
    prctl.capbset_drop(capability)


def clear_ambient() -> None:
    """Clear the ambient set (PR_CAP_AMBIENT_CLEAR_ALL)."""
    call("prctl", s32(PR_CAP_AMBIENT), ulong(PR_CAP_AMBIENT_CLEAR_ALL), ulong(0), ulong(0), ulong(0))


def raise_ambient(capability: int) -> None:
    """Add a capability to the ambient set (PR_CAP_AMBIENT_RAISE).

    It must be in the permitted and in the inheritable set.
    """
    call("prctl", s32(PR_CAP_AMBIENT), ulong(PR_CAP_AMBIENT_RAISE), ulong(capability), ulong(0), ulong(0))


def setgroups(groups: "list[int] | tuple[int, ...]") -> None:
    """Set the supplementary groups of this thread (setgroups(2)).

    Calls the kernel directly: glibc's wrapper signals the other threads of its list, which a child
    of a raw clone3 does not have.
    """
    array = (u32 * max(len(groups), 1))(*groups)
    call("setgroups", ctypes.c_size_t(len(groups)), array)


def setresgid(gid: int) -> None:
    """Set the real, effective and saved gid (setresgid(2))."""
    call("setresgid", u32(gid), u32(gid), u32(gid))


def setresuid(uid: int) -> None:
    """Set the real, effective and saved uid (setresuid(2))."""
    call("setresuid", u32(uid), u32(uid), u32(uid))


def vector(strings: "list[bytes] | tuple[bytes, ...]") -> "ctypes.Array[ctypes.c_char_p]":
    """Return a null-terminated array for execve(2). Keep a reference to it until the call."""
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)


def execve(path: bytes, argv: "ctypes.Array[ctypes.c_char_p]", envp: "ctypes.Array[ctypes.c_char_p]") -> int:
    """Execute a program with prepared vectors (execve(2)). On failure, return the errno."""
    raw(NUMBERS["execve"], path, argv, envp)
    return get_errno()


def personality(persona: int) -> None:
    """Set the execution domain (personality(2))."""
    call("personality", ulong(persona))


def ioprio_set_group(value: int) -> None:
    """Set the I/O priority of the caller's process group (ioprio_set(2))."""
    call("ioprio_set", s32(2), s32(0), s32(value))


def sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """Set the caller's scheduling policy (sched_setattr(2)). Times are in nanoseconds."""
    # struct sched_attr, first version
    attr = struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period)
    call("sched_setattr", s32(0), attr, u32(0))


def rlimit_value(soft: int, hard: int) -> bytes:
    """Return a `struct rlimit64`, prepared before the limits apply."""
    return struct.pack("=QQ", soft, hard)


def prlimit(resource: int, value: bytes) -> None:
    """Set one of the caller's limits to a prepared value (prlimit(2))."""
    call("prlimit64", s32(0), s32(resource), value, None)


def set_host_name(name: bytes) -> None:
    """Set the host name of the caller's UTS namespace (sethostname(2))."""
    call("sethostname", name, ctypes.c_size_t(len(name)), path=name)


def set_domain_name(name: bytes) -> None:
    """Set the domain name of the caller's UTS namespace (setdomainname(2))."""
    call("setdomainname", name, ctypes.c_size_t(len(name)), path=name)
