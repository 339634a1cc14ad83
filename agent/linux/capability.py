"""Capabilities: their names (capabilities(7)), capget(2) and capset(2)."""

import ctypes
import struct
from functools import cache

from agent.linux.libc import call

NAMES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"),
    *("CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW"),
    *("CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT"),
    *("CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD"),
    *("CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG"),
    *("CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
CAP_SYS_ADMIN = 21
CAP_SETPCAP = 8
CAP_MKNOD = 27
LAST_CAP_PATH = "/proc/sys/kernel/cap_last_cap"

VERSION_3 = 0x20080522


_HEADER = struct.pack("=Ii", VERSION_3, 0)
"""`struct __user_cap_header_struct` for the calling thread"""
_DATA = struct.Struct("=6I")
"""Two of `struct __user_cap_data_struct`: (effective, permitted, inheritable), low bits and high"""


class Sets:
    """Prepared arguments of capset(2): the three sets as bit masks.

    `install` allocates nothing.
    """

    __slots__ = ("_data",)

    def __init__(self, effective: int, permitted: int, inheritable: int) -> None:
        sets = effective, permitted, inheritable
        self._data = _DATA.pack(*(bits & 0xFFFFFFFF for bits in sets), *(bits >> 32 for bits in sets))

    def install(self) -> None:
        """Set the calling thread's capabilities (capset(2))."""
        call("capset", _HEADER, self._data)


def capget() -> tuple[int, int, int]:
    """Return the caller's (effective, permitted, inheritable) sets as bit masks (capget(2))."""
    data = ctypes.create_string_buffer(_DATA.size)
    call("capget", _HEADER, data)
    words = _DATA.unpack(data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def mask(names: "frozenset[str] | tuple[str, ...]") -> int:
    """Return the bit mask of known capability names."""
    value = 0
    for name in names:
        value |= 1 << NUMBERS[name]
    return value


@cache
def last_capability() -> int:
    """Return the number of the highest capability that the running kernel knows."""
    with open(LAST_CAP_PATH) as file:
        return int(file.read())
