"""NUMA memory policies: set_mempolicy(2), get_mempolicy(2)."""

import ctypes
import errno

from agent.linux.libc import NUMBERS, call, get_errno, raw, s32, ulong

BITS = 64
"""Bits of one word of a node mask."""


NodeMask = ctypes.Array[ctypes.c_ulong]


def set_mempolicy(mode: int, nodes: NodeMask | None) -> None:
    """Set the caller's NUMA memory policy (set_mempolicy(2)). `nodes` is a bit mask."""
    # The kernel reads one bit less than the given count.
    bits = len(nodes) * BITS + 1 if nodes is not None else 0
    call("set_mempolicy", s32(mode), nodes, ulong(bits))


def node_mask(nodes: tuple[int, ...]) -> NodeMask | None:
    """Return the mask of node numbers, prepared for set_mempolicy(2), or None for no nodes."""
    if not nodes:
        return None
    words = [0] * (max(nodes) // BITS + 1)
    for node in nodes:
        words[node // BITS] |= 1 << node % BITS
    return (ctypes.c_ulong * len(words))(*words)


def knows_mode(mode: int) -> bool:
    """Return whether the kernel accepts a mode with its flags.

    Changes nothing: the mask's address is invalid. The kernel checks the mode first (EINVAL) and
    reads the mask only after that (EFAULT). A kernel without NUMA policies (CONFIG_NUMA) knows no
    mode.
    """
    raw(NUMBERS["set_mempolicy"], s32(mode), ctypes.c_void_p(1), ulong(BITS + 1))
    return get_errno() == errno.EFAULT
