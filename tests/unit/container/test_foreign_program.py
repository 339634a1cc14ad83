"""Why the kernel does not execute a program, by how its file begins."""

import os
import struct

import pytest

from agent.container.init.program import HEADER, not_executable


def elf(bits: int, machine: int, order: str = "<") -> bytes:
    identity = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    return identity + struct.pack(f"{order}HH", 2, machine)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"", "is empty, or cannot be read"),
        (b"echo no interpreter\n", "neither an ELF program nor a script"),
        (b"\x7fELF", "neither an ELF program nor a script"),
        (elf(32, 3), "a program for i386, and this kernel runs those for x86_64 alone"),
        (elf(32, 62), "a program for x32"),
        (elf(64, 62), "a program for x86_64 of another kind"),
        (elf(64, 183), "a program for aarch64"),
        (elf(64, 22, ">"), "a program for s390x"),
        (elf(64, 777), "a program for machine 777"),
    ],
)
def test_why(monkeypatch: pytest.MonkeyPatch, header: bytes, why: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "box", "6.12", "#1", "x86_64")))
    assert why in not_executable(header[:HEADER])
