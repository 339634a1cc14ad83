"""Landlock (landlock(7)): a process gives up, for itself and its children and for good, what it does not need."""

import ctypes
import struct
from functools import cache

from agent.linux.libc import NUMBERS, call, raw, s32, u32
from agent.linux.process import set_no_new_privs

CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

# How many of the accesses to files (LANDLOCK_ACCESS_FS_*: bits from EXECUTE, 0, to IOCTL_DEV, 15) each version of the interface knows.
FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15}
FILE_ACCESSES_NEWEST = 16
NET_ACCESSES = 0b11
"""To bind and to connect a TCP socket; since version 4."""
SCOPES = 0b11
"""Abstract unix sockets and signals stay among those who are as confined; since version 6."""


@cache
def abi() -> int:
    """The version of the interface; 0 where the kernel has none, or it is off."""
    number = NUMBERS["landlock_create_ruleset"]
    return max(0, raw(number, None, ctypes.c_size_t(0), u32(CREATE_RULESET_VERSION)))


def confine(directory: int) -> bool:
    """From now on this process opens, makes and removes files below `directory` only, and reaches no network and no other process.

    What is open already stays so. False, and nothing done, where the kernel has no Landlock.
    """
    version = abi()
    if not version:
        return False
    accesses = (1 << FILE_ACCESSES.get(version, FILE_ACCESSES_NEWEST)) - 1
    # struct landlock_ruleset_attr grew: an older kernel takes no more of it than it knows
    attr = struct.pack("=QQQ", accesses, NET_ACCESSES, SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    beneath = struct.pack("=Qi", accesses, directory)  # struct landlock_path_beneath_attr, which is packed
    set_no_new_privs()
    ruleset = call("landlock_create_ruleset", attr, ctypes.c_size_t(len(attr)), u32(0))
    call("landlock_add_rule", s32(ruleset), u32(RULE_PATH_BENEATH), beneath, u32(0))
    call("landlock_restrict_self", s32(ruleset), u32(0))
    return True
