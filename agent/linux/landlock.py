"""Landlock (landlock(7)): a process irrevocably restricts itself and its future children."""

import ctypes
import struct
from functools import cache

from agent.linux.libc import NUMBERS, call, raw, s32, u32
from agent.linux.process import set_no_new_privs

CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

# How many of the file accesses (LANDLOCK_ACCESS_FS_*: bits from EXECUTE, 0, to IOCTL_DEV, 15) each
# version of the interface knows.
FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15}
FILE_ACCESSES_NEWEST = 16
NET_ACCESSES = 0b11
"""Binding and connecting TCP sockets. Since version 4."""
SCOPES = 0b11
"""Abstract unix sockets and signals: confined to processes in the same domain. Since version 6."""


@cache
def abi() -> int:
    """Return the version of the interface, or 0 if the kernel lacks it or has it disabled."""
    number = NUMBERS["landlock_create_ruleset"]
    return max(0, raw(number, None, ctypes.c_size_t(0), u32(CREATE_RULESET_VERSION)))


def confine(directory: int) -> bool:
    """Restrict this process to files below `directory`. Return False without Landlock.

    From then on it can open, make and remove files below `directory` only. It can use no TCP port
    (version 4), and cannot reach other processes by abstract unix sockets or signals (version 6).
    Descriptors that are open already stay usable. Sets no_new_privs, which the kernel requires. If
    the kernel has no Landlock, does nothing.
    """
    version = abi()
    if not version:
        return False
    accesses = (1 << FILE_ACCESSES.get(version, FILE_ACCESSES_NEWEST)) - 1
    # struct landlock_ruleset_attr grew over time. An older kernel accepts only the fields it knows.
    attr = struct.pack("=QQQ", accesses, NET_ACCESSES, SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    # struct landlock_path_beneath_attr, which is packed
    beneath = struct.pack("=Qi", accesses, directory)
    set_no_new_privs()
    ruleset = call("landlock_create_ruleset", attr, ctypes.c_size_t(len(attr)), u32(0))
    call("landlock_add_rule", s32(ruleset), u32(RULE_PATH_BENEATH), beneath, u32(0))
    call("landlock_restrict_self", s32(ruleset), u32(0))
    return True
