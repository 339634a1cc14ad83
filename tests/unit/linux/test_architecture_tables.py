"""Numbers that differ between x86-64 and aarch64, compared with the kernel's headers of this host (linux-libc-dev has both tables)."""

import re
from pathlib import Path

import pytest

from agent.container.seccomp import ABIS
from agent.linux.libc import COMMON, OLDER
from agent.pod.signals import RT_SIGTIMEDWAIT
from tests.needs import needs

pytestmark = needs("gcc")  # whose C library's headers bring the kernel's

HEADERS = Path("/usr/include")
GENERIC = HEADERS / "asm-generic/unistd.h"
"""The table that aarch64 takes as it is (arch/arm64/include/uapi/asm/unistd.h)."""


def numbers(header: Path) -> dict[str, int]:
    """System calls of a header by name. A call whose name differs by the size of a word is listed as `__NR3264_`."""
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}


def x86_64() -> dict[str, int]:
    (header,) = [path for path in (HEADERS / "x86_64-linux-gnu/asm/unistd_64.h", HEADERS / "asm/unistd_64.h") if path.exists()][:1]
    return numbers(header)


def test_system_calls_are_those_of_the_kernels_tables() -> None:
    intel, arm = x86_64(), numbers(GENERIC)
    assert {name: (intel[name], arm[name]) for name in OLDER} == OLDER
    assert {name: (intel[name], arm[name]) for name in COMMON} == {name: (number, number) for name, number in COMMON.items()}
    assert ([str(intel["rt_sigtimedwait"])], [str(arm["rt_sigtimedwait"])]) == RT_SIGTIMEDWAIT


@pytest.mark.parametrize(
    ("abi", "machine"), [("X86_64", "EM_X86_64"), ("X86", "EM_386"), ("AARCH64", "EM_AARCH64"), ("ARM", "EM_ARM")], ids=lambda word: word
)
def test_abis_of_seccomp_are_those_of_audit(abi: str, machine: str) -> None:
    audit = (HEADERS / "linux/audit.h").read_text()
    bits = {name: int(value, 16) for name, value in re.findall(r"^#define (__AUDIT_ARCH_\w+)\s+(0x[0-9a-f]+)", audit, re.MULTILINE)}
    bits |= {
        name: int(value) for name, value in re.findall(r"^#define (EM_\w+)\s+(\d+)", (HEADERS / "linux/elf-em.h").read_text(), re.MULTILINE)
    }
    name = {"X86": "I386"}.get(abi, abi)
    (words,) = re.findall(rf"^#define AUDIT_ARCH_{name}\s+\(([^)]+)\)$", audit, re.MULTILINE)
    assert machine in words
    assert ABIS[f"SCMP_ARCH_{abi}"][0] == sum(bits[word] for word in words.split("|"))
