"""`linux.seccomp` of the specification, parsed and checked.

agent.container.seccomp compiles it.
"""

from dataclasses import dataclass, field

from agent.container.spec.reader import U32, U64, CachedDocument, SpecReader, absolute, choice
from agent.errors import Refused
from agent.linux import seccomp as floor

# libseccomp's action numbers. ERRNO and TRACE have a value in the low 16 bits (seccomp(2)).
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_VALUE = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ARCHITECTURE_NAMES = (
    *("X86", "X86_64", "X32", "ARM", "AARCH64", "RISCV64", "LOONGARCH64", "M68K", "SH", "SHEB", "PARISC", "PARISC64"),
    *("MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390", "S390X"),
)
ARCHITECTURES = frozenset([f"SCMP_ARCH_{name}" for name in _ARCHITECTURE_NAMES])
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": floor.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": floor.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": floor.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": floor.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}
DEFAULT_ERRNO = 1
NOTIFY = ACTIONS["SCMP_ACT_NOTIFY"]
# The child reports its listener with this system call when the filter is already in force.
NEVER_NOTIFIED = "write"


@dataclass(frozen=True, slots=True)
class Rule:
    """The action for some system calls.

    `args` are comparisons (index, operator, value, value two), which must all hold.
    """

    names: tuple[str, ...]
    action: int
    args: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Listener:
    """The process that answers SCMP_ACT_NOTIFY.

    A unix socket that the listener's descriptor is sent to, and a text that goes with it.
    """

    path: str
    metadata: str


@dataclass(frozen=True, slots=True)
class Seccomp:
    """A profile. `compiled` is empty or holds its one filter (agent.container.seccomp)."""

    default: int
    architectures: tuple[str, ...]
    flags: int
    rules: tuple[Rule, ...]
    listener: Listener | None = field(default=None, compare=False)
    compiled: "list[floor.Filter]" = field(default_factory=list, compare=False, repr=False)


def parse_seccomp(reader: SpecReader) -> Seccomp:
    """Return `linux.seccomp` as an object. Raises Refused.

    The result for a `CachedDocument` is reused, because parsing takes half a millisecond.
    """
    cached = reader.document if isinstance(reader.document, CachedDocument) else None
    if cached is not None and isinstance(cached.parsed, Seccomp):
        return cached.parsed
    warned = len(reader.warnings)
    profile = _parse(reader)
    if cached is not None and len(reader.warnings) == warned:
        cached.parsed = profile
    return profile


def _parse(reader: SpecReader) -> Seccomp:
    default = _action(reader, "defaultAction", "defaultErrnoRet")
    if default == NOTIFY:
        raise Refused(reader.name("defaultAction"), "not for every call: some are made before anybody listens")
    architectures = reader.strings("architectures")
    for index, architecture in enumerate(architectures):
        if architecture not in ARCHITECTURES:
            raise Refused(reader.name(f"architectures[{index}]"), f"{architecture[:64]!r} is unknown")
    rules = tuple([_rule(rule) for rule in reader.children("syscalls")])
    notifies = any(rule.action == NOTIFY for rule in rules)
    profile = Seccomp(default, architectures, _flags(reader, notifies), rules, _listener(reader, notifies))
    reader.finish()
    return profile


def _flags(reader: SpecReader, notifies: bool) -> int:
    """Return the flags of the filter.

    Without a list it is SPEC_ALLOW, for cheaper filters as in runc. An empty list means no flags.
    """
    if not reader.has("flags"):
        return floor.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    flags = 0
    for index, name in enumerate(reader.strings("flags")):
        path = reader.name(f"flags[{index}]")
        flag = choice(name, path, FLAGS)
        if not floor.knows_flag(flag):
            raise Refused(path, f"this kernel does not know {name}")
        if flag == floor.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV and not notifies:
            raise Refused(path, f"{name} is for profiles with SCMP_ACT_NOTIFY")
        flags |= flag
    return flags


def _listener(reader: SpecReader, notifies: bool) -> Listener | None:
    path, metadata = reader.string("listenerPath"), reader.string("listenerMetadata")
    if metadata and not path:
        raise Refused(reader.name("listenerMetadata"), "needs listenerPath")
    if notifies and not path:
        raise Refused(reader.name("listenerPath"), "missing, and a rule asks for SCMP_ACT_NOTIFY")
    if path and not notifies:
        reader.warnings.append(f"{reader.name('listenerPath')}: no rule asks for SCMP_ACT_NOTIFY, so there is nothing to listen to")
    return Listener(absolute(path, reader.name("listenerPath")), metadata) if notifies else None


def _action(reader: SpecReader, key: str, value_key: str) -> int:
    name = reader.string(key)
    action = choice(name, reader.name(key), ACTIONS)
    if not floor.knows_action(action):
        raise Refused(reader.name(key), f"this kernel does not know {name}")
    value = reader.optional(value_key, 0, U32)
    if name in WITH_VALUE:
        limit = 4095 if name == "SCMP_ACT_ERRNO" else 0xFFFF
        if value is not None and value > limit:
            raise Refused(reader.name(value_key), f"{value} is above {limit}")
        return action | (DEFAULT_ERRNO if value is None else value)
    if value is not None:
        raise Refused(reader.name(value_key), f"{name} takes no value")
    return action


def _rule(reader: SpecReader) -> Rule:
    names = reader.strings("names")
    if not names:
        raise Refused(reader.name("names"), "missing")
    args = []
    for arg in reader.children("args"):
        operator = choice(arg.string("op"), arg.name("op"), OPERATORS)
        value_two = arg.integer("valueTwo", 0, U64, 0)
        if value_two and operator != OPERATORS["SCMP_CMP_MASKED_EQ"]:
            arg.warnings.append(f"{arg.name('valueTwo')}: only SCMP_CMP_MASKED_EQ looks at it")
        args.append((arg.integer("index", 0, 5, 0), operator, arg.integer("value", 0, U64, 0), value_two))
        arg.finish()
    rule = Rule(names, _action(reader, "action", "errnoRet"), tuple(args))
    if rule.action == NOTIFY and NEVER_NOTIFIED in names:
        raise Refused(reader.name("names"), f"{NEVER_NOTIFIED} cannot be notified: it is how the listener itself is told of")
    reader.finish()
    return rule
