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
from agent.errors import Refused
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


class DeviceFilter:
    """The device rules of one cgroup, enforced by a program that is attached to it.

    `attached` are the rules that another process has attached already, None if there are none.
    `mknod` says whether the container has CAP_MKNOD.
    """

    def __init__(self, cgroup: int, mknod: bool, attached: tuple[DeviceRule, ...] | None = None) -> None:
        self.rules = () if attached is None else rules_of(attached, mknod)
        self._cgroup = cgroup
        self._mknod = mknod
        self._attached_elsewhere = attached is not None
        self._program = -1

    def bind(self, rules: tuple[DeviceRule, ...]) -> None:
        """Allow access only to the devices of `rules` and those that every container needs.

        Raises Refused.
        """
        self.replace(rules_of(rules, self._mknod))

    def replace(self, rules: tuple[DeviceRule, ...]) -> None:
        """Attach the program of exactly these rules. Raises Refused.

        The present program is replaced atomically: at no time is the cgroup without rules. If
        another process attached it, it is looked up first.
        """
        if rules == self.rules:
            return
        try:
            if self._attached_elsewhere and self._program < 0:
                self._program = bpf.attached_program(self._cgroup, bpf.BPF_CGROUP_DEVICE)
            fd = program(rules)
            flags, replaced = bpf.BPF_F_ALLOW_MULTI, 0
            if self._program >= 0:
                flags, replaced = flags | bpf.BPF_F_REPLACE, self._program
            try:
                bpf.prog_attach(self._cgroup, fd, bpf.BPF_CGROUP_DEVICE, flags, replaced)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise Refused("linux.resources.devices", f"no device program (CONFIG_CGROUP_BPF): {error.strerror}") from error
        self.close()
        self._program, self.rules = fd, rules

    def close(self) -> None:
        """Close the descriptor of the program, which stays attached."""
        if self._program >= 0:
            os.close(self._program)
            self._program = -1
