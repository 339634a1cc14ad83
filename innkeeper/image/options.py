"""What the command line's `run` was asked for, with docker's meaning of each flag."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Volume:
    """`-v HOST:GUEST[:ro]`. `host` is absolute; `destination` is the place in the container."""

    host: Path
    destination: str
    read_only: bool = False
    propagation: str = "rprivate"


@dataclass(frozen=True)
class Port:
    """`-p`: one port of the host forwarded to one of the container. `host_port` 0 lets the host choose."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class Ulimit:
    """`--ulimit NAME=SOFT[:HARD]`; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class Tmpfs:
    """`--tmpfs PATH[:OPTIONS]`; docker's own options are already in `options`."""

    destination: str
    options: tuple[str, ...]


@dataclass
class RunOptions:
    """The flags of `run`, parsed (see `parse.py`). A field left at its default means docker's default.

    `memory` is in bytes, `cpus` in CPUs, `seccomp` a path, "unconfined" or None for the default profile. `terminal_size` is
    (rows, columns). `add_hosts` are (name, address). `env` entries without `=` take the value from `environ` as docker does. `mac` is
    what the guest has of mandatory access control: "apparmor", "selinux" or "".
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
