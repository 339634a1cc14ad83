"""Compile a seccomp profile with libseccomp, in the parent. The child only installs the bytes.

A filter is kept with its profile, so that a profile is compiled only once, and nobody who sends
profiles can make a cache grow.
"""

import ctypes
import os
import struct
import sys
from types import ModuleType

from agent.container.spec.seccomp import OPERATORS, Rule, Seccomp
from agent.errors import Refused
from agent.linux.seccomp import Filter

ALLOW, LOG = 0x7FFF0000, 0x7FFC0000
ENOSYS_ACTION = 0x00050000 | 38
# Rules. libseccomp 2.5.4 misbehaves when it is asked to sort an empty filter.
OPTIMIZE_ABOVE = 32
INSTRUCTION = 8  # bytes of a struct sock_filter
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
X32_BIT, ARM_PRIVATE = 0x40000000, 0x0F0000
ABIS = {
    "SCMP_ARCH_X86_64": (0xC000003E, 0, X32_BIT),
    "SCMP_ARCH_X86": (0x40000003, 0, X32_BIT),
    "SCMP_ARCH_X32": (0xC000003E, X32_BIT, 2 * X32_BIT),
    "SCMP_ARCH_AARCH64": (0xC00000B7, 0, X32_BIT),
    "SCMP_ARCH_ARM": (0x40000028, 0, ARM_PRIVATE),
}
"""The kernel's number of an ABI (linux/audit.h), and the range of its system calls' numbers.

The range is the first number and the limit that all of them are below.
"""

_library: ModuleType | None = None


def library() -> ModuleType:
    """Return pyseccomp, loaded on first use.

    pyseccomp finds its libraries with ctypes.util, which imports 2 MB and runs a compiler or
    ldconfig. PID 1 does neither: the names are fixed, so a module that knows only these replaces
    ctypes.util while pyseccomp is imported.
    """
    global _library
    if _library is None:
        frozen = getattr(sys, "_MEIPASS", "")
        bundled = os.path.join(frozen, "libseccomp.so.2")
        stand_in = ModuleType("ctypes.util")
        names = {"c": "libc.so.6", "seccomp": bundled if frozen and os.path.exists(bundled) else "libseccomp.so.2"}
        stand_in.find_library = names.get  # type: ignore[attr-defined]
        real = sys.modules.get("ctypes.util")
        sys.modules["ctypes.util"] = ctypes.util = stand_in  # type: ignore[attr-defined]
        try:
            import pyseccomp
        finally:
            del sys.modules["ctypes.util"], ctypes.util  # type: ignore[attr-defined]
            if real is not None:
                sys.modules["ctypes.util"] = ctypes.util = real  # type: ignore[attr-defined]
        _library = pyseccomp
    return _library


def knows_architecture(name: str) -> bool:
    """Return whether this libseccomp knows an architecture by the specification's name."""
    return hasattr(library().Arch, name.removeprefix("SCMP_ARCH_"))


def compile_profile(profile: Seccomp) -> Filter:
    """Return the filter of a profile. Raises Refused for what libseccomp does not accept."""
    if not profile.compiled:
        unknown: list[str] = []
        profile.compiled.append(Filter(_compile(profile, unknown), profile.flags, tuple(unknown)))
    return profile.compiled[0]


def _compile(profile: Seccomp, unknown: list[str]) -> bytes:
    seccomp = library()
    filter_ = seccomp.SyscallFilter(profile.default)
    filter_.set_attr(seccomp.Attr.CTL_NNP, 0)
    _add_architectures(seccomp, filter_, profile.architectures)
    count = 0
    for index, rule in enumerate(profile.rules):
        if rule.action == profile.default:
            continue
        try:
            count += _add_rule(seccomp, filter_, rule, unknown)
        except OSError as error:
            raise Refused(f"linux.seccomp.syscalls[{index}]", error.strerror or "libseccomp refuses it") from error
    if count > OPTIMIZE_ABOVE:
        filter_.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)
    fd = os.memfd_create("seccomp")
    with os.fdopen(fd, "r+b", buffering=0) as memory:
        filter_.export_bpf(memory)
        size = memory.tell()
        memory.seek(0)
        return _newer_calls(seccomp, profile) + (memory.read(size) or b"")


def _newer_calls(seccomp: ModuleType, profile: Seccomp) -> bytes:
    """Return instructions before the filter that answer newer system calls with ENOSYS.

    Newer means above the highest number that the profile names. A libc then falls back to an older
    call, while the EPERM of a typical default action would be an error. This is done for each ABI
    of the filter, by the ABI's own numbers. It applies only if the default action is an error or a
    kill: such a profile lists what is allowed, and could not list what did not exist yet.
    """
    if profile.default >> 16 not in (0x0005, 0x0000, 0x8000, 0x0003) or profile.default == ENOSYS_ACTION:
        return b""
    native = NATIVE.get(os.uname().machine, "")
    code = b""
    # The code is assembled from its end.
    for abi in reversed(dict.fromkeys([native, *profile.architectures])):
        if abi not in ABIS:
            continue
        architecture, first, limit = ABIS[abi]
        token = getattr(seccomp.Arch, abi.removeprefix("SCMP_ARCH_"))
        numbers = [seccomp.resolve_syscall(token, name) for rule in profile.rules for name in rule.names]
        highest = max([number for number in numbers if first <= number < limit], default=-1)
        if highest >= 0:
            code = _newer_than(architecture, first, highest, limit, len(code) // INSTRUCTION) + code
    return code


def _newer_than(architecture: int, first: int, highest: int, limit: int, rest: int) -> bytes:
    """Return code that answers the numbers above `highest` of one ABI with ENOSYS.

    The ABI's numbers are from `first` to below `limit`. `rest` instructions follow before the
    filter.
    """
    return b"".join(
        [
            _instruction(0x20, k=4),  # load the architecture
            _instruction(0x15, jt=0, jf=5, k=architecture),
            _instruction(0x20, k=0),  # load the number
            _instruction(0x35, jt=3, jf=0, k=limit),
            _instruction(0x25, jt=1, jf=0, k=highest),  # newer: ENOSYS
            _instruction(0x35, jt=rest + 1, jf=1, k=first),  # older: filter; below `first`: next ABI
            _instruction(0x06, k=ENOSYS_ACTION),
        ]
    )


def _instruction(code: int, jt: int = 0, jf: int = 0, k: int = 0) -> bytes:
    """Return one encoded `struct sock_filter`."""
    return struct.pack("<HBBI", code, jt, jf, k)


def _add_architectures(seccomp: ModuleType, filter_: object, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        token = getattr(seccomp.Arch, name.removeprefix("SCMP_ARCH_"), None)
        if token is None:
            raise Refused(f"linux.seccomp.architectures[{index}]", f"{name!r} is unknown to this libseccomp")
        if token in (seccomp.system_arch(), seccomp.Arch.NATIVE):
            continue
        try:
            filter_.add_arch(token)  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno != 17:  # EEXIST: listed twice, or the native one
                raise Refused(f"linux.seccomp.architectures[{index}]", f"{name!r}: {error.strerror}") from error


def _add_rule(seccomp: ModuleType, filter_: object, rule: Rule, unknown: list[str]) -> int:
    """Add a rule for each of its names that this libseccomp knows. Return how many were added.

    Unknown names are appended to `unknown` if the rule would have restricted them.
    """
    count = 0
    for name in rule.names:
        if seccomp.resolve_syscall(seccomp.system_arch(), name) == -1:
            # A system call of another kernel or architecture. The default action answers it, so
            # nothing is lost if the rule would have allowed it.
            if rule.action not in (ALLOW, LOG):
                unknown.append(name)
            continue
        for args in _alternatives(rule.args):
            comparisons = [seccomp.Arg(index, op, *_operands(op, value, two)) for index, op, value, two in args]
            filter_.add_rule(rule.action, name, *comparisons)  # type: ignore[attr-defined]
            count += 1
    return count


def _operands(operator: int, value: int, value_two: int) -> tuple[int, ...]:
    return (value, value_two) if operator == OPERATORS["SCMP_CMP_MASKED_EQ"] else (value,)


def _alternatives(args: tuple[tuple[int, int, int, int], ...]) -> tuple[tuple[tuple[int, int, int, int], ...], ...]:
    """Return the comparisons of a rule as the sets that libseccomp can add.

    All comparisons of a rule must hold. libseccomp cannot combine two of the same argument: these
    become rules of their own, as in runc.
    """
    indexes = [arg[0] for arg in args]
    if len(set(indexes)) == len(indexes):
        return (args,)
    return tuple([(arg,) for arg in args])
