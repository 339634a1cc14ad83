"""Device rules as an eBPF program, which in cgroup v2 replaces devices.allow and devices.deny.

The rules are ordered. For each kind of access (read, write, mknod) the last matching rule decides,
and an access without a matching rule is denied. One request may ask for several kinds at once, and
different rules may decide them. The program therefore walks the rules from last to first and keeps
a mask of the kinds that are still undecided. A matching allow rule removes its kinds from the mask,
and an empty mask allows the request. A deny rule that matches a kind still in the mask denies the
whole request.
"""

import os

from agent.container.spec.resources import DeviceRule
from agent.linux import bpf

ACCESS = {"m": bpf.BPF_DEVCG_ACC_MKNOD, "r": bpf.BPF_DEVCG_ACC_READ, "w": bpf.BPF_DEVCG_ACC_WRITE}
TYPES = {"b": bpf.BPF_DEVCG_DEV_BLOCK, "c": bpf.BPF_DEVCG_DEV_CHAR}
CACHE_MAX = 64

DEFAULT_RULES = (
    DeviceRule(True, "c", 1, 3, "rwm"),  # null
    DeviceRule(True, "c", 1, 5, "rwm"),  # zero
    DeviceRule(True, "c", 1, 7, "rwm"),  # full
    DeviceRule(True, "c", 1, 8, "rwm"),  # random
    DeviceRule(True, "c", 1, 9, "rwm"),  # urandom
    DeviceRule(True, "c", 5, 0, "rwm"),  # tty
    DeviceRule(True, "c", 5, 1, "rwm"),  # console
    DeviceRule(True, "c", 5, 2, "rwm"),  # ptmx
    DeviceRule(True, "c", 136, None, "rwm"),  # pts
)
# Any node may be created, as package managers do: opening it is checked by itself. Only added for a
# container with CAP_MKNOD.
MKNOD_RULES = (DeviceRule(True, "c", None, None, "m"), DeviceRule(True, "b", None, None, "m"))

# eBPF opcodes (Documentation/bpf/standardization/instruction-set.rst)
LDX_W, MOV64_REG, MOV64_IMM = 0x61, 0xBF, 0xB7
AND64_IMM, AND64_REG, RSH64_IMM = 0x57, 0x5F, 0x77
JNE_IMM, JEQ_IMM, JSET_IMM, EXIT = 0x55, 0x15, 0x45, 0x95
TYPE, ACC, MAJOR, MINOR = 2, 3, 4, 5  # registers

_programs: dict[tuple[DeviceRule, ...], int] = {}
"""Rules -> descriptor of the loaded program, least recently used first.

`program` hands out duplicates, so a descriptor closed here is never one that a caller still uses.
"""


def rules_of(rules: tuple[DeviceRule, ...], mknod: bool) -> tuple[DeviceRule, ...]:
    """Return the rules of a container: the spec's, then those that every container needs."""
    return rules + DEFAULT_RULES + (MKNOD_RULES if mknod else ())


def assemble(rules: tuple[DeviceRule, ...]) -> bytes:
    """Return the byte code for `rules`. It returns 1 in r0 to allow an access and 0 to deny it."""
    insn = bpf.instruction
    code = [
        insn(LDX_W, TYPE, 1, 0),  # struct bpf_cgroup_dev_ctx: access_type = access << 16 | type
        insn(MOV64_REG, ACC, TYPE),
        insn(AND64_IMM, TYPE, imm=0xFFFF),
        insn(RSH64_IMM, ACC, imm=16),
        insn(LDX_W, MAJOR, 1, 4),
        insn(LDX_W, MINOR, 1, 8),
    ]
    for rule in reversed(rules):
        code += _rule(rule)
    code += [insn(MOV64_IMM, 0, imm=0), insn(EXIT)]
    return b"".join(code)


def _rule(rule: DeviceRule) -> list[bytes]:
    """Return the instructions for one rule: tests that skip it unless it matches, then its body."""
    insn = bpf.instruction
    access = sum(ACCESS[letter] for letter in set(rule.access))
    if rule.allow:
        # Remove the kinds of this rule from the undecided ones. If none is left, return 1.
        body = [insn(AND64_IMM, ACC, imm=7 & ~access), insn(JNE_IMM, ACC, imm=0, off=2), insn(MOV64_IMM, 0, imm=1), insn(EXIT)]
    else:
        body = [
            insn(JSET_IMM, ACC, imm=access, off=1),
            insn(0x05, off=2),  # JA: none of this rule's kinds is undecided, go to the next rule
            insn(MOV64_IMM, 0, imm=0),
            insn(EXIT),
        ]
    conditions = []
    if rule.type != "a":
        conditions.append((TYPE, TYPES[rule.type]))
    if rule.major is not None:
        conditions.append((MAJOR, rule.major))
    if rule.minor is not None:
        conditions.append((MINOR, rule.minor))
    tests = []
    for index, (register, value) in enumerate(conditions):
        skip = len(conditions) - index - 1 + len(body)
        tests.append(insn(JNE_IMM, register, imm=value if value < 1 << 31 else value - (1 << 32), off=skip))
    return tests + body


def program(rules: tuple[DeviceRule, ...]) -> int:
    """Load the program for `rules` and return its descriptor, which the caller closes.

    Programs are cached: equal rules share one. Raises OSError.
    """
    fd = _programs.pop(rules, -1)
    if fd < 0:
        if len(_programs) >= CACHE_MAX:
            os.close(_programs.pop(next(iter(_programs))))
        fd = bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, assemble(rules), b"innkeeper")
    _programs[rules] = fd
    return os.dup(fd)


def clear() -> None:
    """Close the cached programs. Attached programs live as long as their cgroups."""
    while _programs:
        os.close(_programs.popitem()[1])


def attach(cgroup_fd: int, rules: tuple[DeviceRule, ...], replaced: int = -1) -> int:
    """Attach the program for `rules` to a cgroup and return the program's descriptor.

    If `replaced` is the descriptor of the attached program, that is replaced atomically: at no time
    is the cgroup without rules. The caller owns both descriptors. Raises OSError.
    """
    fd = program(rules)
    if replaced >= 0:
        flags, replace = bpf.BPF_F_ALLOW_MULTI | bpf.BPF_F_REPLACE, replaced
    else:
        flags, replace = bpf.BPF_F_ALLOW_MULTI, 0
    try:
        bpf.prog_attach(cgroup_fd, fd, bpf.BPF_CGROUP_DEVICE, flags, replace)
    except OSError:
        os.close(fd)
        raise
    return fd
