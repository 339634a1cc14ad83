"""NUMA memory policies: set_mempolicy(2), get_mempolicy(2)."""

import ctypes
import errno

from agent.linux.libc import NUMBERS, call, get_errno, raw, s32, ulong

BITS = 64
"""Of one word of a node mask."""


NodeMask = ctypes.Array[ctypes.c_ulong]


def set_mempolicy(mode: int, nodes: NodeMask | None) -> None:
    """set_mempolicy(2) of the caller. `nodes` is a bit mask; the kernel reads one bit less than it is told."""
    bits = len(nodes) * BITS + 1 if nodes is not None else 0
    call("set_mempolicy", s32(mode), nodes, ulong(bits))


def node_mask(nodes: tuple[int, ...]) -> NodeMask | None:
    """The mask of node numbers, prepared for set_mempolicy(2); None for none."""
    if not nodes:
        return None
    words = [0] * (max(nodes) // BITS + 1)
    for node in nodes:
        words[node // BITS] |= 1 << node % BITS
    return (ctypes.c_ulong * len(words))(*words)


def knows_mode(mode: int) -> bool:
    """Whether the kernel takes a mode with its flags: it looks at them first, and fails at the mask of nodes only then.

    None is known to a kernel without NUMA policies (CONFIG_NUMA).
    """
    raw(NUMBERS["set_mempolicy"], s32(mode), ctypes.c_void_p(1), ulong(BITS + 1))
    return get_errno() == errno.EFAULT
