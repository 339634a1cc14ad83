"""`process` of the specification: the program, its identity, limits and privileges."""

import os
from dataclasses import dataclass

from agent.container.spec.labels import apparmor_profile, selinux_context
from agent.container.spec.reader import U64, SpecReader, absolute, choice
from agent.container.spec.scheduling import Scheduler, parse_cpu_affinity, parse_io_priority, parse_scheduler
from agent.errors import Refused
from agent.linux import capability

ID_MAX = (1 << 32) - 2

RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
DEFAULT_UMASK = 0o022


@dataclass(frozen=True, slots=True)
class User:
    """The ids that the program runs with. `groups` is the exact list for setgroups(2)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int


ROOT = User(0, 0, (), DEFAULT_UMASK)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets as bit masks (capabilities(7))."""

    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One program to run. `console_size` is (rows, columns). `rlimits` are (number, soft, hard).

    None in `apparmor_profile` and `no_new_privs`, and "" in `selinux_label`, request nothing: a
    process of exec then gets its container's.
    """

    terminal: bool = False
    console_size: tuple[int, int] | None = None
    user: User = ROOT
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    capabilities: Capabilities | None = None
    rlimits: tuple[tuple[int, int, int], ...] = ()
    no_new_privs: bool | None = None
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: int | None = None
    cpu_affinity: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    apparmor_profile: str | None = None
    selinux_label: str = ""

    @property
    def has_mknod(self) -> bool:
        """Whether CAP_MKNOD is in the bounding set."""
        return bool(self.capabilities and self.capabilities.bounding >> capability.CAP_MKNOD & 1)


def read_process(reader: SpecReader) -> Process:
    """Return `process` as an object. Raises Refused."""
    reader.refuse_known("commandLine", reason="of another platform")
    terminal = reader.boolean("terminal")
    process = Process(
        terminal=terminal,
        console_size=_console_size(reader, terminal),
        user=_user(reader),
        args=_args(reader),
        env=_env(reader),
        cwd=absolute(reader.string("cwd", "/") or "/", reader.name("cwd")),
        capabilities=_capabilities(reader),
        rlimits=_rlimits(reader),
        no_new_privs=reader.boolean("noNewPrivileges") if reader.has("noNewPrivileges") else None,
        oom_score_adj=reader.optional("oomScoreAdj", -1000, 1000),
        scheduler=parse_scheduler(reader),
        io_priority=parse_io_priority(reader),
        cpu_affinity=parse_cpu_affinity(reader),
        apparmor_profile=apparmor_profile(reader),
        selinux_label=selinux_context(reader, "selinuxLabel"),
    )
    reader.finish()
    return process


def _console_size(reader: SpecReader, terminal: bool) -> tuple[int, int] | None:
    size = reader.child("consoleSize")
    if size is None:
        return None
    rows, columns = size.integer("height", 0, 65535, 0), size.integer("width", 0, 65535, 0)
    size.finish()
    return (rows, columns) if terminal and (rows or columns) else None


def _user(reader: SpecReader) -> User:
    user = reader.child("user")
    if user is None:
        return ROOT
    user.refuse_known("username", reason="of another platform")
    result = User(
        user.integer("uid", 0, ID_MAX, 0),
        user.integer("gid", 0, ID_MAX, 0),
        user.integers("additionalGids", 0, ID_MAX),
        user.integer("umask", 0, 0o777, DEFAULT_UMASK),
    )
    user.finish()
    return result


def _args(reader: SpecReader) -> tuple[str, ...]:
    args = reader.strings("args")
    if not args:
        raise Refused(reader.name("args"), "missing")
    if not args[0]:
        raise Refused(reader.name("args[0]"), "empty")
    return args


def _env(reader: SpecReader) -> tuple[str, ...]:
    """Return the environment. If a name occurs twice, the last entry wins. Raises Refused."""
    last: dict[str, str] = {}
    for index, entry in enumerate(reader.strings("env")):
        name, equals, _ = entry.partition("=")
        if not equals or not name:
            raise Refused(reader.name(f"env[{index}]"), f"{entry[:64]!r} is not NAME=VALUE")
        last.pop(name, None)
        last[name] = entry
    return tuple(last.values())


def _capabilities(reader: SpecReader) -> Capabilities | None:
    sets = reader.child("capabilities")
    if sets is None:
        return None
    known = (1 << capability.last_capability() + 1) - 1
    masks = {}
    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        mask = 0
        for index, name in enumerate(sets.strings(kind)):
            bit = capability.NUMBERS.get(name)
            if bit is None or not known >> bit & 1:
                reader.warnings.append(f"{sets.name(kind)}[{index}]: {name[:64]!r} is no capability of this kernel, not granted")
            else:
                mask |= 1 << bit
        masks[kind] = mask
    sets.finish()
    if masks["effective"] & ~masks["permitted"]:
        raise Refused(sets.name("effective"), "holds a capability that permitted lacks")
    ungranted = masks["ambient"] & ~(masks["permitted"] & masks["inheritable"])
    if ungranted:
        masks["ambient"] &= ~ungranted
        reader.warnings.append(f"{sets.name('ambient')}: what is not permitted and inheritable as well is not granted")
    return Capabilities(**masks)


def _rlimits(reader: SpecReader) -> tuple[tuple[int, int, int], ...]:
    limits: dict[int, tuple[int, int, int]] = {}
    for limit in reader.children("rlimits"):
        kind = choice(limit.string("type"), limit.name("type"), RLIMITS)
        soft, hard = limit.integer("soft", 0, U64, 0), limit.integer("hard", 0, U64, 0)
        limit.finish()
        if kind in limits:
            raise Refused(limit.name("type"), "listed twice")
        if soft > hard:
            raise Refused(limit.name("soft"), f"{soft} is above hard, {hard}")
        limits[kind] = (kind, soft, hard)
    return tuple(limits.values())


def home_of(passwd: bytes, uid: int) -> bytes:
    """Return the home directory of `uid` in a passwd file, b"/" if it has none."""
    wanted = b"%d" % uid
    for line in passwd.splitlines():
        parts = line.split(b":")
        if len(parts) >= 6 and parts[2] == wanted:
            return parts[5] or b"/"
    return b"/"


def encode(strings: tuple[str, ...]) -> list[bytes]:
    """Return texts as bytes for the kernel."""
    return [os.fsencode(string) for string in strings]


NO_PROCESS = Process(no_new_privs=False)
"""Stands for a missing `process`. Such a container can be created but not started."""
