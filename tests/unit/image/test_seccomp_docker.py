"""The default seccomp profile beside docker's, as Debian carries it: every call, argument case, capability and ABI.

Ours is compiled and its program run; docker's document is read by an evaluator of its own here, so that no code is on both sides.
Where the answers differ on purpose stands in docs/security.md, and nowhere else.
"""

import ctypes
import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agent.container.seccomp import compile_profile
from agent.linux.capability import NAMES as ALL_CAPABILITIES
from innkeeper.image.defaults import CAPABILITIES
from innkeeper.image.seccomp import GUEST_KERNEL, load_profile
from innkeeper.image.seccomp_default import read_profile
from tests.debian_package import unpacked
from tests.needs import needs
from tests.paths import ROOT
from tests.unit.classic_bpf import Program
from tests.unit.container.documents import parsed

PACKAGE = "golang-github-docker-docker-dev"
PROFILE = "usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json"
SECURITY = ROOT / "docs/security.md"
pytestmark = needs("libseccomp.so.2", "module:pyseccomp", f"debian:{PACKAGE}")

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
X32_BIT, ARM_PRIVATE, NUMBERS = 0x40000000, 0xF0000, 600
U64 = 2**64 - 1


@dataclass(frozen=True)
class Abi:
    """`token` is libseccomp's, `audit` the kernel's; docker calls machines as Go does. `bits` of an argument are compared."""

    name: str
    machine: str
    goarch: str
    token: int
    audit: int
    numbers: Sequence[int]
    bits: int = 64


ABIS = [
    Abi("x86-64", "x86_64", "amd64", 0xC000003E, 0xC000003E, range(NUMBERS)),
    Abi("i386", "x86_64", "amd64", 0x40000003, 0x40000003, range(NUMBERS), 32),
    Abi("x32", "x86_64", "amd64", 0x4000003E, 0xC000003E, range(X32_BIT, X32_BIT + NUMBERS), 32),
    Abi("aarch64", "aarch64", "arm64", 0xC00000B7, 0xC00000B7, range(NUMBERS)),
    Abi("arm", "aarch64", "arm64", 0x40000028, 0x40000028, (*range(NUMBERS), *range(ARM_PRIVATE, ARM_PRIVATE + 16)), 32),
]


@cache
def names_of(abi: Abi) -> dict[int, str]:
    """The calls of an ABI by number, as libseccomp knows them."""
    library = ctypes.CDLL("libseccomp.so.2")
    resolve = library.seccomp_syscall_resolve_num_arch
    resolve.argtypes, resolve.restype = [ctypes.c_uint32, ctypes.c_int], ctypes.c_void_p
    found = {}
    for number in abi.numbers:
        if text := resolve(abi.token, number):
            found[number] = ctypes.string_at(text).decode()
            ctypes.CDLL(None).free(ctypes.c_void_p(text))
    return found


@cache
def docker() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((unpacked(PACKAGE) / PROFILE).read_text())
    assert document["defaultAction"] == "SCMP_ACT_ERRNO" and document["defaultErrnoRet"] == errno.EPERM
    return document


def binding(abi: Abi, bounding: Sequence[str], kernel: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Docker's rules that hold for a container (moby, profiles/seccomp: `includes` must all hold, `excludes` must not)."""
    for rule in docker()["syscalls"]:
        wanted, unwanted = rule.get("includes", {}), rule.get("excludes", {})
        assert set(wanted) | set(unwanted) <= {"caps", "arches", "minKernel"} and "minKernel" not in unwanted
        least = tuple(int(part) for part in wanted.get("minKernel", "0.0").split("."))
        if (
            set(wanted.get("caps", ())) <= set(bounding)
            and abi.goarch in wanted.get("arches", [abi.goarch])
            and not set(unwanted.get("caps", ())) & set(bounding)
            and abi.goarch not in unwanted.get("arches", ())
            and kernel >= least
        ):
            yield rule


def matches(comparison: Mapping[str, Any], args: Sequence[int], bits: int) -> bool:
    """A comparison of the specification; libseccomp compares 32 bits for ABIs whose pointers have 32."""
    mask = (1 << bits) - 1
    value, given = int(comparison["value"]) & mask, args[int(comparison["index"])] & mask
    match comparison["op"]:
        case "SCMP_CMP_NE":
            return given != value
        case "SCMP_CMP_EQ":
            return given == value
        case "SCMP_CMP_MASKED_EQ":
            return given & value == int(comparison.get("valueTwo", 0))
    raise AssertionError(comparison["op"])


class Docker:
    """What docker's profile answers for one kind of container."""

    def __init__(self, abi: Abi, bounding: Sequence[str], kernel: tuple[int, int]) -> None:
        self.bits = abi.bits
        self.rules: dict[str, list[dict[str, Any]]] = {}
        for rule in binding(abi, bounding, kernel):
            for name in rule["names"]:
                self.rules.setdefault(name, []).append(rule)
        # runc lets calls not exist that are newer than all that a profile names; numbers of ARM's own do not count.
        names = names_of(abi)
        self.newest = max([number for number, name in names.items() if name in self.rules and number & 0xF0000 != ARM_PRIVATE])

    def answer(self, number: int, name: str | None, args: Sequence[int]) -> str:
        """The answer as the table in docs/security.md writes it."""
        answers = [
            "allow" if rule["action"] == "SCMP_ACT_ALLOW" else errno.errorcode[rule["errnoRet"]]
            for rule in self.rules.get(name or "", ())
            if all(matches(comparison, args, self.bits) for comparison in rule.get("args", ()))
        ]
        assert len(set(answers)) < 2, f"{name}: rules that contradict each other"
        if answers:
            return answers[0]
        return "ENOSYS" if self.newest < number and number & 0xF0000 != ARM_PRIVATE else "EPERM"


def written(answer: int) -> str:
    """A SECCOMP_RET_* value in the table's words."""
    return "allow" if answer == ALLOW else errno.errorcode[answer - ERRNO]


@cache
def boundaries() -> dict[str, list[list[int]]]:
    """For each call with conditions on an argument, in either profile: arguments at and beside each number that they name, bit by bit."""
    named: dict[tuple[str, int], set[int]] = {}
    for rule in docker()["syscalls"]:
        for comparison in rule.get("args", ()):
            for name in rule["names"]:
                named.setdefault((name, comparison["index"]), set()).add(comparison["value"])
    for group in read_profile().groups:
        for index, _, value in group.comparisons:
            for name in group.calls:
                named.setdefault((name, index), set()).add(value)
    cases: dict[str, list[list[int]]] = {}
    for (name, index), values in named.items():
        near = {value + step for value in values for step in (-1, 0, 1)} | {0, U64} | {1 << bit for bit in range(64)}
        near |= {value | 1 << bit for value in values for bit in (31, 32, 63)} | {value ^ U64 for value in values}
        for value in sorted({value & U64 for value in near}):
            cases.setdefault(name, []).append([value if place == index else 0 for place in range(6)])
    return cases


def capability_sets() -> list[tuple[str, ...]]:
    """None, docker's default, each alone and added to the default, all but each, all."""
    everything = tuple(ALL_CAPABILITIES)
    alone = [(name,) for name in everything]
    added = [(*CAPABILITIES, name) for name in everything if name not in CAPABILITIES]
    without = [tuple([name for name in everything if name != left_out]) for left_out in everything]
    return [(), tuple(CAPABILITIES), *alone, *added, *without, everything]


Case = tuple[str | None, tuple[int, ...], str, str]
"""A call's name, its arguments, docker's answer and ours."""


@dataclass(frozen=True)
class Row:
    """A line of the table of differences."""

    call: str
    argument: str
    docker: str
    ours: str

    def covers(self, name: str | None, args: Sequence[int], bits: int) -> bool:
        """Return whether the row speaks of this call; its arguments are of `bits` bits."""
        if name != self.call:
            return False
        if self.argument == "any":
            return True
        number, above = int(self.argument.removesuffix(" and above")), self.argument.endswith(" and above")
        given = args[0] & ((1 << bits) - 1)
        return given >= number if above else given == number


def table() -> list[Row]:
    """The rows of the table in docs/security.md that begins with `| call | argument |`."""
    lines = SECURITY.read_text().splitlines()
    (start,) = [place for place, line in enumerate(lines) if line.startswith("| call | argument |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        call, argument, docker_s, ours, why = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        assert why
        rows.append(Row(call, argument, docker_s, ours))
    assert rows
    return rows


@cache
def compiled(document: str) -> Program:
    profile = parsed("linux.seccomp", json.loads(document)).linux.seccomp
    assert profile is not None
    return Program(compile_profile(profile).instructions)


@cache
def answers(abi: Abi, bounding: tuple[str, ...], kernel: tuple[int, int] = GUEST_KERNEL, file: Path | None = None) -> list[Case]:
    """Every call and argument case, asked of our default profile or of `file`."""
    theirs, names = Docker(abi, bounding, kernel), names_of(abi)
    ours = compiled(json.dumps(load_profile(file, bounding, machine=abi.machine, kernel=kernel)))
    found: list[Case] = []
    for number in abi.numbers:
        name = names.get(number)
        for args in boundaries().get(name or "", ([0] * 6, [U64] * 6)):
            answer = written(ours.answer(number, *args, arch=abi.audit))
            found.append((name, tuple(args), theirs.answer(number, name, args), answer))
    return found


@pytest.mark.parametrize("abi", ABIS, ids=lambda abi: abi.name)
def test_every_answer_is_dockers_but_for_the_table(abi: Abi) -> None:
    rows = table()
    asked = set()
    for bounding in capability_sets():
        # Containers for which both profiles are the same documents need to be asked once.
        theirs = json.dumps(list(binding(abi, bounding, GUEST_KERNEL)))
        ours = json.dumps(load_profile(None, bounding, machine=abi.machine))
        if (theirs, ours) in asked:
            continue
        asked.add((theirs, ours))
        for name, args, theirs, answer in answers(abi, bounding):
            expected = theirs
            for row in rows:
                if row.covers(name, args, abi.bits):
                    assert theirs == row.docker, f"{row} says what docker's profile does not: {theirs} for {args}"
                    expected = row.ours
            assert answer == expected, f"{name}{args} with {bounding}: ours {answer}, docker's {theirs}"
    assert len(asked) > 12


@pytest.mark.parametrize("kernel", [(4, 7), (4, 8), (4, 9), (5, 0)])
@pytest.mark.parametrize("abi", [ABIS[0], ABIS[3]], ids=lambda abi: abi.name)
def test_other_kernels(abi: Abi, kernel: tuple[int, int]) -> None:
    for bounding in (tuple(CAPABILITIES), (*CAPABILITIES, "CAP_SYS_PTRACE")):
        different = {name for name, _, theirs, ours in answers(abi, bounding, kernel) if theirs != ours}
        assert different <= {row.call for row in table()}


@pytest.mark.parametrize("abi", ABIS, ids=lambda abi: abi.name)
def test_dockers_own_file_means_what_it_means_to_docker(abi: Abi) -> None:
    for bounding in ((), tuple(CAPABILITIES), (*CAPABILITIES, "CAP_SYS_ADMIN")):
        cases = answers(abi, bounding, file=unpacked(PACKAGE) / PROFILE)
        assert [case for case in cases if case[2] != case[3]] == []


def test_every_row_of_the_table_is_a_difference() -> None:
    for row in table():
        seen = set()
        for abi in ABIS:
            seen |= {case[2:] for case in answers(abi, tuple(CAPABILITIES)) if row.covers(*case[:2], abi.bits)}
        assert seen == {(row.docker, row.ours)}, row


@pytest.mark.parametrize("abi", ABIS, ids=lambda abi: abi.name)
def test_every_call_is_in_some_group(abi: Abi) -> None:
    """Nothing is denied because it was forgotten: what no group names is newer than all that one names, and does not exist."""
    named = {name for group in read_profile().groups for name in group.calls}
    newest = max(number for number, name in names_of(abi).items() if name in named and number & 0xF0000 != ARM_PRIVATE)
    assert {name for number, name in names_of(abi).items() if name not in named and number < newest} == set()


def test_both_know_the_same_abis() -> None:
    ours = {machine: list(abis) for machine, abis in read_profile().machines.items()}
    theirs = {entry["architecture"]: entry["subArchitectures"] or [] for entry in docker()["archMap"]}
    assert ours == {machine: [native, *theirs[native]] for machine, (native, *_) in ours.items()}
