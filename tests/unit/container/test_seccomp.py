"""Compiled profiles, asked call by call: the program is run by a small interpreter."""

import os
from typing import Any

import pytest

from agent.container.seccomp import compile_profile
from agent.container.spec.seccomp import Seccomp
from agent.errors import Refused
from tests.unit.classic_bpf import Program
from tests.unit.container.documents import parsed

pytestmark = [pytest.mark.needs("module:pyseccomp"), pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")]
X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
X32 = 0x40000000
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
READ, WRITE, KILL_CALL, MKDIR, PERSONALITY = 0, 1, 62, 83, 135


def answer(program: bytes, number: int, *args: int, arch: int = X86_64) -> int:
    """What the filter returns for a call."""
    return Program(program).answer(number, *args, arch=arch)


def profile(**fields: Any) -> Seccomp:
    found = parsed("linux.seccomp", fields).linux.seccomp
    assert found is not None
    return found


def program(**fields: Any) -> bytes:
    return compile_profile(profile(**fields)).instructions


def test_allow_list() -> None:
    code = program(defaultAction="SCMP_ACT_ERRNO", syscalls=[{"names": ["read", "mkdir", "no_such_call"], "action": "SCMP_ACT_ALLOW"}])
    assert [answer(code, number) for number in (READ, MKDIR, WRITE)] == [ALLOW, ALLOW, ERRNO | 1]


def test_calls_newer_than_the_profile_do_not_exist() -> None:
    code = program(defaultAction="SCMP_ACT_ERRNO", syscalls=[{"names": ["read", "mkdir"], "action": "SCMP_ACT_ALLOW"}])
    assert [answer(code, number) for number in (MKDIR + 1, 435)] == [ERRNO | 38] * 2
    code = program(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}])
    assert answer(code, 435) == ALLOW


@pytest.mark.parametrize(
    ("arch", "highest"), [(X86_64, 83), (I386, 39), (AARCH64, 63), (ARM, 39)], ids=["x86-64", "i386", "aarch64", "arm"]
)
def test_newer_calls_of_each_abi_do_not_exist(arch: int, highest: int) -> None:
    listed = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    rules = [{"names": ["read", "mkdir", "breakpoint"], "action": "SCMP_ACT_ALLOW"}]
    code = program(defaultAction="SCMP_ACT_ERRNO", architectures=listed, syscalls=rules)
    assert [answer(code, number, arch=arch) for number in (highest - 1, highest, highest + 1, 435)] == [
        ERRNO | 1, ALLOW, ERRNO | 38, ERRNO | 38,
    ]  # fmt: skip


def test_newer_calls_of_x32() -> None:
    listed = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    code = program(
        defaultAction="SCMP_ACT_ERRNO", architectures=listed, syscalls=[{"names": ["read", "ptrace"], "action": "SCMP_ACT_ALLOW"}]
    )
    # ptrace is 101 to x86-64 and 521 to x32
    assert [answer(code, number) for number in (100, 101, 102, 521)] == [ERRNO | 1, ALLOW, ERRNO | 38, ERRNO | 38]
    assert [answer(code, X32 + number) for number in (0, 101, 520, 521, 522)] == [ALLOW, ERRNO | 1, ERRNO | 1, ALLOW, ERRNO | 38]


def test_private_calls_of_arm_are_not_newer() -> None:
    code = program(
        defaultAction="SCMP_ACT_ERRNO",
        architectures=["SCMP_ARCH_ARM"],
        syscalls=[{"names": ["cacheflush", "read"], "action": "SCMP_ACT_ALLOW"}],
    )
    assert [answer(code, number, arch=ARM) for number in (3, 4, 0xF0001, 0xF0002)] == [ALLOW, ERRNO | 38, ERRNO | 1, ALLOW]


def test_errno_and_default_errno() -> None:
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}, {"names": ["personality"], "action": "SCMP_ACT_ALLOW"}]
    code = program(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=5, syscalls=rules)
    assert [answer(code, number) for number in (MKDIR, PERSONALITY, WRITE)] == [ERRNO | 28, ALLOW, ERRNO | 5]


def test_arguments_must_all_match() -> None:
    args = [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 9, "op": "SCMP_CMP_LE"}]
    code = program(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": args}])
    assert [answer(code, KILL_CALL, *pair) for pair in ((7, 9), (7, 10), (8, 9))] == [ERRNO | 1, ALLOW, ALLOW]


def test_two_comparisons_of_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (0, 8)]
    code = program(defaultAction="SCMP_ACT_ERRNO", syscalls=[{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}])
    assert [answer(code, PERSONALITY, value) for value in (0, 8, 1)] == [ALLOW, ALLOW, ERRNO | 1]


def test_masked_comparison() -> None:
    args = [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    code = program(defaultAction="SCMP_ACT_ERRNO", syscalls=[{"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": args}])
    assert [answer(code, KILL_CALL, value) for value in (0x11, 0x20000)] == [ALLOW, ERRNO | 1]


def test_architectures() -> None:
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]
    with_32 = program(defaultAction="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], syscalls=rules)
    assert answer(with_32, 39, arch=I386) == ERRNO | 13
    assert answer(with_32, 0x40000000 + MKDIR) == ERRNO | 13
    without = program(defaultAction="SCMP_ACT_ALLOW", syscalls=rules)
    assert answer(without, 39, arch=I386) in (0, KILL)
    assert answer(without, 0x40000000 + MKDIR) in (0, KILL)


def test_a_rule_like_the_default_is_left_out() -> None:
    code = program(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}])
    assert answer(code, MKDIR) == ALLOW


def test_a_profile_is_compiled_once() -> None:
    one = profile(defaultAction="SCMP_ACT_ALLOW", syscalls=[{"names": ["read"], "action": "SCMP_ACT_LOG"}])
    assert compile_profile(one) is compile_profile(one)


def test_what_libseccomp_refuses_names_the_rule() -> None:
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    rules = [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args},
        {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": args},
    ]
    try:
        code = program(defaultAction="SCMP_ACT_ALLOW", syscalls=rules)
    except Refused as refused:
        assert refused.field == "linux.seccomp.syscalls[1]"
    else:
        assert answer(code, READ, 1) in (ERRNO | 1, 0x00030000)
