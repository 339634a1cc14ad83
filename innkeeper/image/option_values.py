"""Parsers of docker's flag syntax. Each raises InnkeeperError with the flag and the value."""

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.image.run_options import Port, RunOptions, Tmpfs, Ulimit, Volume

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_TMPFS_WORDS = frozenset(
    {
        *("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "sync", "async", "noatime", "atime"),
        *("nodiratime", "diratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    }
)
_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"})
_PROPAGATION = frozenset({"private", "rprivate", "slave", "rslave"})
ULIMITS = frozenset(
    {
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
        *("rtprio", "rttime", "sigpending", "stack"),
    }
)


SYSCTLS = frozenset(
    {
        *("kernel.domainname", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
        *("kernel.shmmni", "kernel.shm_rmid_forced"),
    }
)
"""Settings that belong to a namespace of the container, as docker allows them."""
SYSCTL_PREFIXES = ("fs.mqueue.", "net.")
HOST_GATEWAY = "host-gateway"
"""The value of --add-host that stands for the address of the host."""


def parse_size(text: str, flag: str = "--memory") -> int:
    """Return the bytes of `512m`, `1.5g` or `100`.

    As docker/go-units RAMInBytes: units are powers of 1024, in either case.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", text.lower())
    if match is None:
        raise InnkeeperError(f"{flag} {text}: invalid size", hint="use a number with b, k, m or g, like 512m")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_memory(text: str) -> int:
    """Return the bytes of `--memory`, at least 6 MiB as in docker."""
    size = parse_size(text)
    if size < 6 << 20:
        raise InnkeeperError(f"--memory {text}: minimum memory limit allowed is 6m")
    return size


def parse_cpus(text: str) -> float:
    """Return the number of CPUs of `--cpus 1.5`, at least 0.01."""
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0.01 <= cpus <= 8192:
        raise InnkeeperError(f"--cpus {text}: must be a number from 0.01 to 8192")
    return cpus


def parse_volume(text: str) -> Volume:
    """Parse `-v HOST:GUEST[:OPTIONS]`. The path on the host must exist.

    Options are ro, rw, z, Z and a propagation.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts[:2]):
        raise InnkeeperError(f"-v {text}: must be HOST:GUEST[:ro]", hint="name a folder or file of the host by its absolute path")
    source, destination = parts[0], parts[1]
    if not source.startswith(("/", ".", "~")):
        hint = f"for a folder here: -v ./{source}:{destination}"
        raise InnkeeperError(f"-v {text}: {source} is a named volume, which is not supported", hint=hint)
    if not destination.startswith("/") or os.path.normpath(destination) == "/":
        raise InnkeeperError(f"-v {text}: mount path in the container must be absolute, and not /")
    host = Path(os.path.abspath(os.path.expanduser(source)))
    if not host.exists():
        raise InnkeeperError(f"-v {text}: bind source path does not exist: {host}", hint="create it first: a missing folder is not made")
    read_only, propagation = False, "rprivate"
    for word in parts[2].split(",") if len(parts) == 3 else ():
        if word in ("ro", "rw"):
            read_only = word == "ro"
        elif word in _PROPAGATION:
            propagation = word
        elif word in ("z", "Z") and not os.path.exists("/sys/fs/selinux/enforce"):
            pass  # asks for SELinux labels: ignored on a host without SELinux, as docker does
        else:
            raise InnkeeperError(f"-v {text}: option {word!r} is not supported", hint="use ro or rw")
    return Volume(host, os.path.normpath(destination), read_only, propagation)


def parse_ports(text: str, flag: str = "-p") -> list[Port]:
    """Parse `-p [[IP:]HOST:]CONTAINER[/tcp|udp]`, with ports or ranges of equal length.

    An IPv6 address is in brackets. A missing address is "", which means all addresses of the host.
    `flag` is for errors.
    """
    mapping, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp"):
        raise InnkeeperError(f"{flag} {text}: protocol {protocol} is not supported", hint="use tcp or udp")
    match = re.fullmatch(r"(?:(\[[0-9a-fA-F:.]+\]|[0-9.]*):)?(?:([0-9-]*):)?([0-9-]+)", mapping)
    if match is None:
        raise InnkeeperError(f"{flag} {text}: must be [[IP:]HOST:]CONTAINER[/tcp|udp]")
    address, host, container = match.groups()
    if host is None and address is not None:  # HOST:CONTAINER: the first group took the host's port
        address, host = ("", address) if "." not in address and not address.startswith("[") else (address, "")
    inside = _port_range(container, f"{flag} {text}")
    outside = _port_range(host, f"{flag} {text}") if host else [0] * len(inside)
    if len(outside) != len(inside):
        raise InnkeeperError(f"{flag} {text}: host and container port ranges differ in length")
    return [Port(_address(address, text), out, into, protocol) for out, into in zip(outside, inside, strict=True)]


def _port_range(text: str, flag: str) -> list[int]:
    """Return the ports of `8080` or `8080-8085`. `flag` is the flag with its value, for errors."""
    first, dash, last = text.partition("-")
    try:
        low = int(first)
        high = int(last) if dash else low
    except ValueError:
        low = high = 0
    if not 1 <= low <= high <= 65535:
        raise InnkeeperError(f"{flag}: invalid port or range: {text}")
    return list(range(low, high + 1))


def _address(text: str | None, flag: str) -> str:
    if not text:
        return ""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError as error:
        raise InnkeeperError(f"-p {flag}: invalid IP address: {text}") from error


def parse_ulimit(text: str) -> Ulimit:
    """Parse `--ulimit nofile=1024[:2048]`."""
    match = re.fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", text)
    if match is None or match[1] not in ULIMITS:
        raise InnkeeperError(f"--ulimit {text}: must be NAME=SOFT[:HARD] with a known name", hint=f"limits: {', '.join(sorted(ULIMITS))}")
    soft = int(match[2])
    hard = int(match[3]) if match[3] else soft
    if min(soft, hard) < -1 or max(soft, hard) >= 2**63:
        raise InnkeeperError(f"--ulimit {text}: out of range")
    if hard != -1 and (soft > hard or soft == -1):
        raise InnkeeperError(f"--ulimit {text}: soft limit must be less than or equal to hard limit")
    return Ulimit(match[1], soft, hard)


def parse_tmpfs(text: str) -> Tmpfs:
    """Parse `--tmpfs PATH[:OPTIONS]`. docker's defaults noexec, nosuid and nodev come first."""
    destination, _, options = text.partition(":")
    if not destination.startswith("/") or os.path.normpath(destination) == "/":
        raise InnkeeperError(f"--tmpfs {text}: mount path must be absolute, and not /")
    words = [word for word in options.split(",") if word]
    for word in words:
        key, equals, value = word.partition("=")
        if not (word in _TMPFS_WORDS or (equals and key in _TMPFS_VALUES and re.fullmatch(r"[0-9a-zA-Z%]+", value))):
            raise InnkeeperError(f"--tmpfs {text}: invalid option {word!r}")
    return Tmpfs(os.path.normpath(destination), (*_TMPFS_DEFAULTS, *words))


def parse_sysctl(text: str) -> tuple[str, str]:
    """Return (name, value) of `--sysctl NAME=VALUE`.

    As in docker, only settings of the container's own namespaces are accepted.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not name or not equals:
        raise InnkeeperError(f"--sysctl {text}: must be NAME=VALUE")
    dotted = name.replace("/", ".")
    if dotted not in SYSCTLS and not dotted.startswith(SYSCTL_PREFIXES):
        hint = f"allowed: {', '.join([*sorted(SYSCTLS), *[prefix + '*' for prefix in SYSCTL_PREFIXES]])}"
        raise InnkeeperError(f"--sysctl {name}: not allowed: it does not belong to a namespace of the container", hint=hint)
    return name, value


def parse_hostname(text: str) -> str:
    """Return the name of `--hostname`.

    It must fit into uname(2) and into a line of /etc/hosts.
    """
    if not 1 <= len(text.encode()) <= 64 or re.search(r"[\s\0#/]", text):
        raise InnkeeperError(f"--hostname {text!r}: invalid host name: 1 to 64 bytes, no spaces, no # and no /")
    return text


def parse_add_host(text: str) -> tuple[str, str]:
    """Return (name, address) of `--add-host NAME:IP` or `NAME=IP`.

    `host-gateway` stands for the address of the host.
    """
    match = re.fullmatch(r"([^\s:=#]+)[:=](.+)", text)
    address = match[2].strip("[]") if match else ""
    if match is None or (address != HOST_GATEWAY and not _is_address(address)):
        raise InnkeeperError(f"--add-host {text}: must be NAME:IP", hint=f"for the host itself: --add-host NAME:{HOST_GATEWAY}")
    return match[1], address


def parse_dns(text: str) -> str:
    """Return the address of `--dns IP`."""
    if not _is_address(text):
        raise InnkeeperError(f"--dns {text}: invalid IP address")
    return text


def parse_word(text: str, flag: str) -> str:
    """Return `text`, which must be a single word of a line in resolv.conf(5)."""
    if not text or re.search(r"[\s\0]", text):
        raise InnkeeperError(f"{flag} {text!r}: must be one word")
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_security_opts(values: Sequence[str], options: RunOptions) -> None:
    """Apply `--security-opt` values to `options`. The separator is `=`, or docker's old `:`."""
    for text in values:
        name, value = [*re.split("[=:]", text, maxsplit=1), ""][:2]
        if name == "no-new-privileges" and value in ("", "true", "false"):
            options.no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            options.seccomp = value
        elif name == "apparmor" and value:
            options.apparmor = value
        elif name == "label" and value:
            options.label = [*options.label, value]
        elif name == "systempaths" and value == "unconfined":
            options.unmask = True
        else:
            known = "seccomp=, no-new-privileges, apparmor=, label=, systempaths=unconfined"
            raise InnkeeperError(f"--security-opt {text}: no such option", hint=f"known: {known}")


def resolve_env(env: Sequence[str], env_files: Sequence[Path], environ: Mapping[str, str]) -> list[str]:
    """Return the variables of `--env-file` and `-e`, in docker's order (files first).

    A `NAME` alone takes its value from `environ`. If it is not set there, a file's entry is
    dropped, while that of `-e NAME` stays `NAME`, which removes the image's own variable.
    """
    result = [found for path in env_files for entry in read_env_file(path) if "=" in (found := _from_environ(entry, environ))]
    for entry in env:
        if not entry.partition("=")[0] or "\0" in entry:
            raise InnkeeperError(f"-e {entry!r}: must be NAME or NAME=VALUE")
        result.append(_from_environ(entry, environ))
    return result


def _from_environ(entry: str, environ: Mapping[str, str]) -> str:
    return f"{entry}={environ[entry]}" if "=" not in entry and entry in environ else entry


def read_env_file(path: Path) -> list[str]:
    """Return the lines `NAME=VALUE` or `NAME` of a file.

    Empty lines and those that start with `#` are skipped. Quotes are kept, as in docker.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InnkeeperError(f"--env-file {path}: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}") from error
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or re.search(r"\s", name):
            raise InnkeeperError(f"--env-file {path}: line {number}: invalid variable name {name!r}")
        entries.append(line)
    return entries
