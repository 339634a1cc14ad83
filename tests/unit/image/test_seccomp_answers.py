"""What the compiled default filter answers, found by running its program, not by reading the profile."""

import platform
from pathlib import Path
from typing import Any

import pytest

from agent.container.seccomp import compile_profile
from agent.container.spec.document import parse_spec
from innkeeper.image import Image, ImageConfig, RunOptions, build_spec
from tests.needs import needs
from tests.unit.classic_bpf import Program

pytestmark = [needs("libseccomp.so.2"), pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")]

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x00000000
X86_64, I386 = 0xC000003E, 0x40000003
X32 = 0x40000000
NUMBERS = {
    "read": 0, "ioctl": 16, "socket": 41, "clone": 56, "reboot": 169, "mount": 165, "umount2": 166, "pivot_root": 155, "swapon": 167,
    "init_module": 175, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "finit_module": 313, "bpf": 321, "userfaultfd": 323,
    "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "clone3": 435, "mount_setattr": 442, "ptrace": 101,
    "settimeofday": 164, "clock_settime": 227, "chroot": 161, "personality": 135, "iopl": 172, "syslog": 103, "acct": 163,
}  # fmt: skip
NEW_NAMESPACES = [0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000]


def run(program: bytes, number: int, args: tuple[int, ...] = (), arch: int = X86_64) -> int:
    """What the filter answers."""
    return Program(program).answer(number, *args, arch=arch)


def program_for(**options: Any) -> bytes:
    image = Image("test", "sha256:0", ImageConfig(), Path("x"), None, None)
    document = build_spec(image, RunOptions(args=["t"], **options), container_id="c", root_path="/r", environ={})
    spec = parse_spec(document, frozenset({"net"}))
    assert spec.linux.seccomp is not None
    return compile_profile(spec.linux.seccomp).instructions


@pytest.fixture(scope="module")
def program() -> bytes:
    return program_for()


@pytest.mark.parametrize(
    "name", sorted(set(NUMBERS) - {"read", "ioctl", "socket", "clone", "clone3", "ptrace", "chroot", "personality", "name_to_handle_at"})
)
def test_denied(program: bytes, name: str) -> None:
    assert run(program, NUMBERS[name]) == EPERM


@pytest.mark.parametrize("name", ["read", "ioctl", "ptrace", "chroot", "name_to_handle_at"])
def test_allowed(program: bytes, name: str) -> None:
    assert run(program, NUMBERS[name]) == ALLOW


def test_no_new_namespaces(program: bytes) -> None:
    assert run(program, NUMBERS["clone"], (0x01200011,)) == ALLOW
    for flag in NEW_NAMESPACES:
        assert run(program, NUMBERS["clone"], (flag | 17,)) == EPERM
    assert run(program, NUMBERS["clone3"]) == ENOSYS


def test_socket_families(program: bytes) -> None:
    for family in (0, 1, 2, 10, 16, 17, 37, 39, 44):
        assert run(program, NUMBERS["socket"], (family,)) == ALLOW
        assert run(program, NUMBERS["socket"] | X32, (family,)) == ALLOW
    for family in (38, 40, 46, 38 | 1 << 32, 40 | 1 << 63, 2**64 - 1):
        assert run(program, NUMBERS["socket"], (family,)) == EPERM


def test_personality(program: bytes) -> None:
    assert run(program, NUMBERS["personality"], (0xFFFFFFFF,)) == ALLOW
    assert run(program, NUMBERS["personality"], (0x0040000,)) == EPERM


@pytest.mark.parametrize(
    ("name", "number"), [("mount", 21), ("umount2", 52), ("reboot", 88), ("ptrace-free unshare", 310), ("keyctl", 288), ("bpf", 357)]
)
def test_32_bit_calls_are_filtered_alike(program: bytes, name: str, number: int) -> None:
    assert run(program, number, arch=I386) == EPERM


def test_32_bit_sockets(program: bytes) -> None:
    socket = 359
    assert run(program, socket, (2,), I386) == ALLOW
    assert run(program, socket, (40,), I386) == EPERM
    assert run(program, socket, (38,), I386) == EPERM
    assert run(program, 102, (1,), I386) == ENOSYS  # socketcall(SYS_SOCKET): its family is in memory, out of the filter's sight


def test_x32_numbers(program: bytes) -> None:
    assert run(program, NUMBERS["mount"] | X32) == EPERM
    assert run(program, NUMBERS["read"] | X32) == ALLOW


def test_foreign_architecture_is_killed(program: bytes) -> None:
    assert run(program, 0, arch=0x40000028) in (KILL, 0x80000000)


def test_capability_opens() -> None:
    program = program_for(cap_add=["SYS_ADMIN"])
    assert run(program, NUMBERS["mount"]) == ALLOW
    assert run(program, NUMBERS["unshare"]) == ALLOW
    assert run(program, NUMBERS["clone"], (0x10000000,)) == ALLOW
    assert run(program_for(cap_drop=["SYS_CHROOT"]), NUMBERS["chroot"]) == EPERM
