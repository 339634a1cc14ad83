"""The flags of `run`, parsed, each with docker's meaning."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Volume:
    """`-v HOST:GUEST[:ro]`. `host` is absolute. `destination` is a path in the container."""

    host: Path
    destination: str
    read_only: bool = False
    propagation: str = "rprivate"


@dataclass(frozen=True)
class Port:
    """`-p`: a port of the host forwarded to a port of the container. `host_port` 0 means any."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class Ulimit:
    """`--ulimit NAME=SOFT[:HARD]`. -1 means unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Tmpfs:
    """`--tmpfs PATH[:OPTIONS]`. `options` starts with docker's defaults."""

    destination: str
    options: tuple[str, ...]


@dataclass
class RunOptions:
    """The flags of `run`, parsed (see `option_values.py`).

    A field left at its default means docker's default. `memory` is in bytes, `cpus` in CPUs,
    `seccomp` a path, "unconfined" or None for the default profile. `terminal_size` is (rows,
    columns). `add_hosts` are (name, address). `env` entries without `=` take their value from
    `environ`, as in docker. `mac` is the guest's system of mandatory access control: "apparmor",
    "selinux" or "". `architecture` is the guest's, as uname(2) has it, or "" for this host's.
    """

    args: Sequence[str] = ()
    interactive: bool = False
    tty: bool = False
    terminal_size: tuple[int, int] | None = None
    term: str = "xterm"
    env: Sequence[str] = ()
    env_files: Sequence[Path] = ()
    volumes: Sequence[Volume] = ()
    ports: Sequence[Port] = ()
    publish_all: bool = False
    workdir: str | None = None
    user: str | None = None
    hostname: str | None = None
    memory: int | None = None
    cpus: float | None = None
    pids_limit: int | None = None
    read_only: bool = False
    tmpfs: Sequence[Tmpfs] = ()
    shm_size: int = 64 << 20
    cap_add: Sequence[str] = ()
    cap_drop: Sequence[str] = ()
    seccomp: str | None = None
    no_new_privileges: bool = True
    apparmor: str | None = None
    label: Sequence[str] = ()
    mac: str = ""
    architecture: str = ""
    unmask: bool = False
    ulimits: Sequence[Ulimit] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    init: bool = False
    group_add: Sequence[str] = ()
    add_hosts: Sequence[tuple[str, str]] = ()
    dns: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    stop_signal: str | None = None
