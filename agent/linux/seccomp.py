"""seccomp(2): install a compiled filter, and ask which flags and actions the kernel knows.

agent.container.seccomp compiles filters.
"""

import ctypes
import errno

from agent.linux.libc import NUMBERS, failure, get_errno, raw, u32

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_FILTER_FLAG_TSYNC = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
# Flags that the kernel accepts only together with others.
_TOGETHER = {SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: SECCOMP_FILTER_FLAG_NEW_LISTENER}
_flags: dict[int, bool] = {}
_actions: dict[int, bool] = {}


class SockFprog(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


assert ctypes.sizeof(SockFprog) == 16


class Filter:
    """A program that is ready to install.

    The 8-byte instructions are in a buffer that the filter owns, so that `install` is one system
    call.
    """

    __slots__ = ("_buffer", "_program", "flags", "instructions", "unknown")

    def __init__(self, instructions: bytes, flags: int, unknown: tuple[str, ...] = ()) -> None:
        if len(instructions) % 8 or not 0 < len(instructions) // 8 <= 4096:
            raise ValueError(f"a filter of {len(instructions)} bytes")
        self.instructions = instructions
        self.flags = flags
        self.unknown = unknown
        """System calls that were requested and left out, because the compiler does not know them.
        """
        self._buffer = ctypes.create_string_buffer(instructions, len(instructions))
        self._program = SockFprog(len(instructions) // 8, ctypes.addressof(self._buffer))

    def install(self, flags: int | None = None) -> int:
        """Install the filter (SECCOMP_SET_MODE_FILTER). Return 0, or the listener's descriptor.

        `flags` replaces the filter's own flags if given. Raises OSError.
        """
        chosen = u32(self.flags if flags is None else flags)
        result = raw(NUMBERS["seccomp"], u32(SECCOMP_SET_MODE_FILTER), chosen, ctypes.byref(self._program))
        if result == -1:
            raise failure("seccomp")
        return result


def knows_flag(flag: int) -> bool:
    """Return whether the kernel accepts a SECCOMP_FILTER_FLAG_*.

    Installs nothing: the program is a null pointer. The kernel checks the flags first (EINVAL) and
    reads the program only after that (EFAULT).
    """
    known = _flags.get(flag)
    if known is None:
        raw(NUMBERS["seccomp"], u32(SECCOMP_SET_MODE_FILTER), u32(flag | _TOGETHER.get(flag, 0)), None)
        known = _flags[flag] = get_errno() == errno.EFAULT
    return known


def knows_action(action: int) -> bool:
    """Return whether the kernel accepts a SECCOMP_RET_* (SECCOMP_GET_ACTION_AVAIL)."""
    known = _actions.get(action)
    if known is None:
        answer = raw(NUMBERS["seccomp"], u32(SECCOMP_GET_ACTION_AVAIL), u32(0), ctypes.byref(u32(action)))
        known = _actions[action] = answer == 0
    return known
