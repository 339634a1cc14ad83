"""Capabilities: their names (capabilities(7)), capget(2) and capset(2)."""

import ctypes
from functools import cache

from agent.linux.libc import call, s32, u32

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


class _Header(ctypes.Structure):
    _fields_ = [("version", u32), ("pid", s32)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", u32), ("permitted", u32), ("inheritable", u32)]


class Sets:
    """Prepared arguments of capset(2): the three sets as bit masks.

    `install` allocates nothing.
    """

    __slots__ = ("_data", "_header")

    def __init__(self, effective: int, permitted: int, inheritable: int) -> None:
        self._header = _Header(VERSION_3, 0)
        low, high = 0xFFFFFFFF, 32
        self._data = (_Data * 2)(
            _Data(effective & low, permitted & low, inheritable & low),
            _Data(effective >> high, permitted >> high, inheritable >> high),
        )

    def install(self) -> None:
        """Set the calling thread's capabilities (capset(2))."""
        call("capset", ctypes.byref(self._header), self._data)


def capget() -> tuple[int, int, int]:
    """Return the caller's (effective, permitted, inheritable) sets as bit masks (capget(2))."""
    header = _Header(VERSION_3, 0)
    data = (_Data * 2)()
    call("capget", ctypes.byref(header), data)
    low, high = data[0], data[1]
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


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
