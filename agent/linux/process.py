"""Processes and namespaces: clone3(2), setns(2), unshare(2), pidfds, waitid(2), prctl(2), exec with prepared vectors.

python-prctl does the prctl calls it knows; what it lacks (the ambient set) goes by number.
"""

import ctypes
import os

import prctl

from agent.linux.libc import NUMBERS, call, failure, get_errno, raw, s32, u32, u64, ulong

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    # The public module turns each of the 64 numbers into an enumeration's member and back: 70 us a call, on the way of every container.
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


class CloneArgs(ctypes.Structure):
    """`struct clone_args` of clone3(2)."""

    _fields_ = [
        ("flags", u64),
        ("pidfd", u64),
        ("child_tid", u64),
        ("parent_tid", u64),
        ("exit_signal", u64),
        ("stack", u64),
        ("stack_size", u64),
        ("tls", u64),
        ("set_tid", u64),
        ("set_tid_size", u64),
        ("cgroup", u64),
    ]


assert ctypes.sizeof(CloneArgs) == 88


def clone3(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """Fork: (pid, pidfd) in the parent, (0, -1) in the child, which starts in `cgroup` (a descriptor of its directory) if given.

    No hook of the interpreter runs in the child, so from there to exec only system calls are safe. Handlers are reset; ignored
    signals stay ignored. The caller has one thread and has blocked all signals. With CLONE_PARENT the child is the caller's sibling.
    """
    pidfd = s32(-1)
    arguments = CloneArgs(flags=flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND)
    arguments.exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD
    arguments.pidfd = ctypes.addressof(pidfd)
    if cgroup is not None:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = call("clone3", ctypes.byref(arguments), ctypes.c_size_t(88))
    return pid, pidfd.value if pid else -1


_EVERY_SIGNAL = signal.valid_signals()


class SignalsBlocked:
    """`with`: no signal arrives, so that a child forked inside never runs a handler of the parent's."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_SETMASK, _EVERY_SIGNAL)

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def setns(fd: int, kinds: int) -> None:
    """setns(2): join the namespace of `fd`, or those of `kinds` when it is a pidfd."""
    call("setns", s32(fd), s32(kinds))


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", ulong(flags))


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """pidfd_send_signal(2). Raises ProcessLookupError when the process is gone."""
    call("pidfd_send_signal", s32(pidfd), s32(signum), None, u32(0))


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy, close-on-exec, of another process's descriptor."""
    return call("pidfd_getfd", s32(pidfd), s32(fd), u32(0))


def close_range_cloexec(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec."""
    call("close_range", u32(first), u32(0xFFFFFFFF), u32(CLOSE_RANGE_CLOEXEC))


def close_all_but(keep: "list[int]") -> None:
    """Close every descriptor from 3 on that is not in `keep` (sorted)."""
    first = 3
    for fd in keep:
        if fd > first:
            call("close_range", u32(first), u32(fd - 1), u32(0))
        first = max(first, fd + 1)
    call("close_range", u32(first), u32(0xFFFFFFFF), u32(0))


def wait_status(info: "os.waitid_result") -> int:
    """The shell's number of an end: the exit status, or 128 + the signal."""
    return info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status


def reset_ignored_signals() -> None:
    """Give every signal that is ignored here (SIGPIPE and SIGXFSZ by Python) its default again: an ignored one survives exec."""
    for signum in _EVERY_SIGNAL:
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


def unblock_signals() -> None:
    """Let every signal arrive."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def set_dumpable(dumpable: bool) -> None:
    """PR_SET_DUMPABLE: 0 keeps other processes from tracing or reading this one."""
    prctl.set_dumpable(int(dumpable))


def set_keepcaps(keep: bool) -> None:
    """PR_SET_KEEPCAPS: permitted capabilities survive the change of user."""
    prctl.set_keepcaps(int(keep))


def set_child_subreaper() -> None:
    """PR_SET_CHILD_SUBREAPER: orphans below this process come to it, not to the machine's init."""
    prctl.set_child_subreaper(1)


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS."""
    prctl.set_no_new_privs(1)


def drop_bounding(capability: int) -> None:
    """PR_CAPBSET_DROP. By number, so that a capability newer than python-prctl's table is dropped as well."""
    prctl.capbset_drop(capability)


def clear_ambient() -> None:
    """PR_CAP_AMBIENT_CLEAR_ALL."""
    call("prctl", s32(PR_CAP_AMBIENT), ulong(PR_CAP_AMBIENT_CLEAR_ALL), ulong(0), ulong(0), ulong(0))


def raise_ambient(capability: int) -> None:
    """PR_CAP_AMBIENT_RAISE: needs the capability permitted and inheritable."""
    call("prctl", s32(PR_CAP_AMBIENT), ulong(PR_CAP_AMBIENT_RAISE), ulong(capability), ulong(0), ulong(0))


def setgroups(groups: "list[int] | tuple[int, ...]") -> None:
    """setgroups(2) of this thread. glibc's wrapper signals other threads, which a raw child does not have."""
    array = (u32 * max(len(groups), 1))(*groups)
    call("setgroups", ctypes.c_size_t(len(groups)), array)


def setresgid(gid: int) -> None:
    """setresgid(2): real, effective and saved group."""
    call("setresgid", u32(gid), u32(gid), u32(gid))


def setresuid(uid: int) -> None:
    """setresuid(2): real, effective and saved user."""
    call("setresuid", u32(uid), u32(uid), u32(uid))


def vector(strings: "list[bytes] | tuple[bytes, ...]") -> "ctypes.Array[ctypes.c_char_p]":
    """A null-terminated array as execve(2) takes it. Keep it until the call."""
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)


def execve(path: bytes, argv: "ctypes.Array[ctypes.c_char_p]", envp: "ctypes.Array[ctypes.c_char_p]") -> int:
    """execve(2) with prepared vectors; returns only on failure, with the errno."""
    raw(NUMBERS["execve"], path, argv, envp)
    return get_errno()


def personality(persona: int) -> None:
    """personality(2)."""
    call("personality", ulong(persona))


def ioprio_set_group(value: int) -> None:
    """ioprio_set(2) of the caller's process group."""
    call("ioprio_set", s32(2), s32(0), s32(value))


class SchedAttr(ctypes.Structure):
    """`struct sched_attr`, first version (48 bytes)."""

    _fields_ = [
        ("size", u32),
        ("sched_policy", u32),
        ("sched_flags", u64),
        ("sched_nice", s32),
        ("sched_priority", u32),
        ("sched_runtime", u64),
        ("sched_deadline", u64),
        ("sched_period", u64),
    ]


assert ctypes.sizeof(SchedAttr) == 48


def sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """sched_setattr(2) of the caller. Times in nanoseconds."""
    attr = SchedAttr(48, policy, flags, nice, priority, runtime, deadline, period)
    call("sched_setattr", s32(0), ctypes.byref(attr), u32(0))


class _Rlimit(ctypes.Structure):
    _fields_ = [("rlim_cur", u64), ("rlim_max", u64)]


def rlimit_value(soft: int, hard: int) -> object:
    """`struct rlimit64`, prepared before the limits bite."""
    return _Rlimit(soft, hard)


def prlimit(resource: int, value: object) -> None:
    """prlimit(2) of the caller with a prepared value."""
    call("prlimit64", s32(0), s32(resource), ctypes.byref(value), None)  # type: ignore[arg-type]


def set_host_name(name: bytes) -> None:
    """sethostname(2)."""
    _set_name(libc_sethostname, "sethostname", name)


def set_domain_name(name: bytes) -> None:
    """setdomainname(2)."""
    _set_name(libc_setdomainname, "setdomainname", name)


def _set_name(function: "ctypes._NamedFuncPointer", call_name: str, name: bytes) -> None:
    if function(name, len(name)) == -1:
        raise failure(call_name, name)


_libc = ctypes.PyDLL(None, use_errno=True)
libc_sethostname = _libc.sethostname
libc_setdomainname = _libc.setdomainname
for _function in (libc_sethostname, libc_setdomainname):
    _function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    _function.restype = ctypes.c_int
