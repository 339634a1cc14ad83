"""The device program: its bytes are run by a small interpreter and compared with the rules read one by one."""

import struct
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.container.cgroup.device_program import DEFAULT_RULES, assemble, rules_of
from agent.container.spec.resources import DeviceRule

MNEMONIC = {"m": 1, "r": 2, "w": 4}
KINDS = {"b": 1, "c": 2}


def execute(code: bytes, kind: str, access: int, major: int, minor: int) -> int:
    """Run the program on `struct bpf_cgroup_dev_ctx`: the few opcodes that the assembler uses, anything else fails."""
    context = struct.pack("<III", access << 16 | KINDS[kind], major, minor)
    registers = [0] * 11
    position = 0
    while True:
        opcode, sides, off, imm = struct.unpack_from("<BBhi", code, position * 8)
        dst, src = sides & 15, sides >> 4
        position += 1
        unsigned = imm & 0xFFFFFFFFFFFFFFFF
        if opcode == 0x61:
            assert src == 1
            registers[dst] = struct.unpack_from("<I", context, off)[0]
        elif opcode == 0xBF:
            registers[dst] = registers[src]
        elif opcode == 0xB7:
            registers[dst] = unsigned
        elif opcode == 0x57:
            registers[dst] &= unsigned
        elif opcode == 0x77:
            registers[dst] >>= imm
        elif opcode == 0x55:
            position += off if registers[dst] != unsigned else 0
        elif opcode == 0x45:
            position += off if registers[dst] & unsigned else 0
        elif opcode == 0x05:
            position += off
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def meant(rules: tuple[DeviceRule, ...], kind: str, access: int, major: int, minor: int) -> int:
    """For each access asked for, the last rule that names it decides; none: denied."""
    for bit in (1, 2, 4):
        if not access & bit:
            continue
        allowed = False
        for rule in rules:
            named = rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
            if named and any(MNEMONIC[letter] == bit for letter in rule.access):
                allowed = rule.allow
        if not allowed:
            return 0
    return 1


RULES = st.builds(
    DeviceRule,
    st.booleans(),
    st.sampled_from("abc"),
    st.sampled_from([None, 0, 1, 5]),
    st.sampled_from([None, 0, 3]),
    st.sampled_from(["r", "w", "m", "rw", "rwm", "mr"]),
)


@given(st.lists(RULES, max_size=8).map(tuple))
def test_the_program_means_what_the_rules_mean(rules: tuple[DeviceRule, ...]) -> None:
    code = assemble(rules)
    for kind, access, major, minor in product("bc", range(1, 8), (0, 1, 5, 9), (0, 3, 9)):
        assert execute(code, kind, access, major, minor) == meant(rules, kind, access, major, minor)


def test_no_rule_denies_everything() -> None:
    assert execute(assemble(()), "c", 2, 1, 3) == 0


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "passes"),
    [("c", 6, 1, 3, 1), ("c", 6, 136, 7, 1), ("c", 1, 10, 229, 0), ("b", 2, 254, 0, 0), ("c", 2, 1, 11, 0), ("c", 6, 5, 2, 1)],
)
def test_the_default_rules(kind: str, access: int, major: int, minor: int, passes: int) -> None:
    assert execute(assemble(rules_of((), mknod=False)), kind, access, major, minor) == passes


def test_making_any_node_only_with_the_capability() -> None:
    assert execute(assemble(rules_of((), mknod=True)), "b", 1, 254, 0) == 1
    assert execute(assemble(rules_of((), mknod=True)), "b", 3, 254, 0) == 0


def test_a_privileged_list_allows_all() -> None:
    everything = (DeviceRule(True, "a", None, None, "rwm"),)
    assert execute(assemble(rules_of(everything, mknod=False)), "b", 7, 254, 0) == 1


def test_large_numbers_compare_as_the_kernel_does() -> None:
    code = assemble((DeviceRule(True, "c", 0xFFFFFFFE, None, "r"),))
    assert len(code) % 8 == 0
    assert execute(code, "c", 2, 0xFFFFFFFE, 0) == 0  # no device has such a number: the immediate is sign-extended and never equal


def test_bytes_of_a_small_program() -> None:
    code = assemble((DeviceRule(True, "c", 1, 3, "r"),))
    expected = (
        "6112000000000000"  # r2 = ctx->access_type
        "bf23000000000000"  # r3 = r2
        "57020000ffff0000"  # r2 &= 0xffff: the type
        "7703000010000000"  # r3 >>= 16: the access
        "6114040000000000"  # r4 = ctx->major
        "6115080000000000"  # r5 = ctx->minor
        "5502060002000000"  # not a character device: next
        "5504050001000000"  # not major 1: next
        "5505040003000000"  # not minor 3: next
        "5703000005000000"  # r3 &= ~read
        "5503020000000000"  # something is left: next
        "b700000001000000"  # r0 = 1
        "9500000000000000"  # exit
        "b700000000000000"  # r0 = 0
        "9500000000000000"  # exit
    )
    assert code.hex() == expected
    assert len(DEFAULT_RULES) == 9
