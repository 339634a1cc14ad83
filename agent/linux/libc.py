"""System calls that the standard library lacks: `syscall(2)` by number, raising OSError.

From 424 on the numbers are the same on every architecture (the common table). The older ones are
listed for x86_64 and aarch64, the two that we build for.

`PyDLL` keeps the interpreter's lock during a call. If a call released it, another thread could hold
it at the moment of a clone3(2), and the child would wait for a lock that nobody releases.
"""

import ctypes
import os

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OLDER = {
    "pivot_root": (155, 41),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "unshare": (272, 97),
    "setns": (308, 268),
    "capget": (125, 90),
    "capset": (126, 91),
    "prctl": (157, 167),
    "personality": (135, 92),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "set_mempolicy": (238, 237),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "prlimit64": (302, 261),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "execve": (59, 221),
    "fstatfs": (138, 44),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
"""Name -> numbers for (x86_64, aarch64)."""
COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

MACHINE = os.uname().machine
NUMBERS = {**COMMON, **{name: numbers[MACHINE == "aarch64"] for name, numbers in OLDER.items()}}

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
get_errno = ctypes.get_errno


def raw(number: int, *arguments: object) -> int:
    """Call `number` and return the kernel's result: -1 with `get_errno()` set on failure.

    For the last calls before exec.
    """
    return int(_syscall(ctypes.c_long(number), *arguments))


def call(name: str, *arguments: object, path: str | bytes | None = None) -> int:
    """Call `name` and return its result.

    Arguments are ctypes values, bytes, or None for a null pointer. Raises OSError that names the
    call and `path`.
    """
    result = int(_syscall(ctypes.c_long(NUMBERS[name]), *arguments))
    if result == -1:
        raise failure(name, path)
    return result


def failure(name: str, path: str | bytes | None = None) -> OSError:
    """Return the OSError of the call that has just failed.

    It has the call's errno, the text `name: strerror` and, if given, the path.
    """
    number = ctypes.get_errno()
    text = f"{name}: {os.strerror(number)}"
    return OSError(number, text) if path is None else OSError(number, text, os.fsdecode(path))


def path_bytes(path: str | bytes) -> bytes:
    """Return a path as bytes for the kernel.

    Raises ValueError for an embedded NUL byte: C would silently cut the path there.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"a path with a NUL byte: {encoded!r}")
    return encoded


def trim_heap() -> None:
    """Return free heap memory to the kernel (malloc_trim(3)).

    This makes later forks cheaper: a fork copies the page tables of every resident page.
    """
    _libc.malloc_trim(ctypes.c_size_t(0))


u32 = ctypes.c_uint32
s32 = ctypes.c_int32
ulong = ctypes.c_ulong
