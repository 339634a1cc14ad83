"""Programs of a few instructions that the guest can execute, made without a compiler."""

import struct

BASE = 0x400000
"""The address at which the file is mapped."""
HEADERS = 64 + 56
"""Bytes of the ELF header and the one program header. Code begins after them."""


def static_program(code: bytes) -> bytes:
    """Return a static x86-64 program of one segment, which can be read and executed (elf(5)).

    `code` must not depend on its address. It begins with the stack as execve(2) has left it.
    """
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    ehdr = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = HEADERS + len(code)
    return ehdr + struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 4096) + code
