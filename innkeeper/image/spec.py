"""Build the OCI runtime specification from an image and the flags of `run`.

Everything else has docker's defaults.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.image import defaults
from innkeeper.image.block_device import Image
from innkeeper.image.option_values import resolve_env
from innkeeper.image.run_options import RunOptions
from innkeeper.image.seccomp import load_profile
from innkeeper.image.security_opt import apparmor_profile, selinux_labels
from innkeeper.wire.passwd import AccountError, User, resolve_user

OCI_VERSION = "1.1.0"
INIT_SOURCE = "/usr/libexec/innkeeper/init"
"""The path of the small init for `--init` in the guest's root."""
INIT = "/sbin/docker-init"
UNLIMITED = 2**64 - 1


def build_spec(
    image: Image,
    options: RunOptions,
    *,
    container_id: str,
    root_path: str,
    volume_sources: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    image_volumes: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return the `config.json` document for running `image`.

    These are paths in the guest:

    * `root_path`
    * `volume_sources`, one for each of `options.volumes`
    * `files`, which maps a path in the container, such as /etc/resolv.conf, to its source
    * `image_volumes`, the same for the image's own volumes, which are always writable

    `environ` is the environment for `-e NAME`, by default that of this process. Raises
    InnkeeperError, which names the flag or the image's field.
    """
    user = _user(image, options)
    hostname = options.hostname or container_id[:12]
    capabilities = select_capabilities(options.cap_add, options.cap_drop)
    labels = selinux_labels(options, container_id)
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            **_process(image, options, user, hostname, capabilities, os.environ if environ is None else environ),
            **_labels(options, labels),
        },
        "root": {"path": root_path, "readonly": options.read_only},
        "hostname": hostname,
        "mounts": _mounts(options, volume_sources, files or {}, image_volumes or {}),
        "linux": {**_linux(options, capabilities), **({"mountLabel": labels[1]} if labels else {})},
    }


def _user(image: Image, options: RunOptions) -> User:
    try:
        return resolve_user(image.config.user if options.user is None else options.user, image.passwd, image.group, options.group_add)
    except AccountError as error:
        raise InnkeeperError(str(error), hint=error.hint) from error


def command_line(image: Image, options: RunOptions) -> list[str]:
    """Return entrypoint and command, combined as docker does.

    `--entrypoint` also drops the image's command.
    """
    if options.entrypoint is not None:
        argv = [options.entrypoint] if options.entrypoint else []
        argv += options.args
    else:
        argv = [*image.config.entrypoint, *(options.args or image.config.cmd)]
    if not argv:
        raise InnkeeperError(f"image {image.reference}: no command specified", hint="give one after the image")
    if not argv[0] or any("\0" in arg for arg in argv):
        raise InnkeeperError(f"command {argv!r}: its name is empty, or it holds a NUL byte")
    return argv


def environment(image: Image, options: RunOptions, hostname: str, environ: Mapping[str, str]) -> list[str]:
    """Return docker's variables, then the image's, then the user's.

    The last value of a name wins, in the position of the first. HOME is included only if it was set
    explicitly. Otherwise the agent gives each process the home directory of its user in the
    container's /etc/passwd. As in docker, a NAME without a value removes an earlier variable, and
    an entry without a name is ignored.
    """
    base = [f"PATH={defaults.PATH}", f"HOSTNAME={hostname}"]
    if options.tty:
        base.append(f"TERM={options.term}")
    merged: dict[str, str] = {}
    for entry in [*base, *image.config.env, *resolve_env(options.env, options.env_files, environ)]:
        name, equals, value = entry.partition("=")
        if "\0" in entry:
            raise InnkeeperError(f"image {image.reference}: Env {entry!r} holds a NUL byte")
        if equals and name:
            merged[name] = value
        else:
            merged.pop(name, None)
    return [f"{name}={value}" for name, value in merged.items()]


def select_capabilities(add: Sequence[str], drop: Sequence[str]) -> list[str]:
    """Return docker's default set with `--cap-add` and `--cap-drop` applied, in the kernel's order.

    ALL stands for every capability.
    """
    added, dropped = _capability_names("--cap-add", add), _capability_names("--cap-drop", drop)
    if "ALL" in added:
        chosen = set(defaults.ALL_CAPABILITIES) - dropped
    elif "ALL" in dropped:
        chosen = added
    else:
        chosen = (set(defaults.CAPABILITIES) - dropped) | added
    return [name for name in defaults.ALL_CAPABILITIES if name in chosen]


def _capability_names(flag: str, names: Sequence[str]) -> set[str]:
    found = set()
    for name in names:
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full != "ALL" and full not in defaults.ALL_CAPABILITIES:
            raise InnkeeperError(f"{flag} {name}: invalid capability")
        found.add(full)
    return found


def _process(
    image: Image, options: RunOptions, user: User, hostname: str, capabilities: list[str], environ: Mapping[str, str]
) -> dict[str, object]:
    """Return the `process` object."""
    argv = command_line(image, options)
    process: dict[str, object] = {
        "terminal": options.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": [INIT, "--", *argv] if options.init else argv,
        "env": environment(image, options, hostname, environ),
        "cwd": _working_directory(image, options),
        # Inheritable and ambient stay empty, so that a user other than root gains nothing by exec.
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": options.no_new_privileges,
    }
    if options.tty and options.terminal_size:
        rows, columns = options.terminal_size
        process["consoleSize"] = {"height": rows, "width": columns}
    process["rlimits"] = [
        {"type": f"RLIMIT_{name.upper()}", "soft": _limit(soft), "hard": _limit(hard)} for name, (soft, hard) in _ulimits(options).items()
    ]
    return process


def _ulimits(options: RunOptions) -> dict[str, tuple[int, int]]:
    return {**defaults.ULIMITS, **{limit.name: (limit.soft, limit.hard) for limit in options.ulimits}}


def _labels(options: RunOptions, labels: tuple[str, str] | None) -> dict[str, str]:
    profile = apparmor_profile(options)
    requested = {"apparmorProfile": profile, "selinuxLabel": labels[0] if labels else None}
    return {name: value for name, value in requested.items() if value}


def _limit(value: int) -> int:
    return UNLIMITED if value == -1 else value


def _working_directory(image: Image, options: RunOptions) -> str:
    if options.workdir is not None and not options.workdir.startswith("/"):
        raise InnkeeperError(f"-w {options.workdir}: must be an absolute path")
    return os.path.normpath("/" + (options.workdir or image.config.working_dir).lstrip("/"))


def _mounts(
    options: RunOptions, volume_sources: Sequence[str], files: Mapping[str, str], image_volumes: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return the kernel's file systems, then our files and the requested mounts, parents first.

    As in docker, a requested mount replaces the default one at its place, and one at /dev also
    those below it. A volume at /etc is mounted before our /etc/hosts. On a read-only root, our
    files are read-only too.
    """
    access = ["ro"] if options.read_only else []
    own = [defaults.mount(place, "bind", source, "rbind", "rprivate", *access) for place, source in files.items()]
    own += [defaults.mount(place, "bind", source, "rbind", "rprivate") for place, source in image_volumes.items()]
    requested: dict[str, dict[str, object]] = {}
    for volume, source in zip(options.volumes, volume_sources, strict=True):
        mode = "ro" if volume.read_only else "rw"
        _add(requested, defaults.mount(volume.destination, "bind", source, "rbind", volume.propagation, mode), "-v")
    for tmpfs in options.tmpfs:
        _add(requested, defaults.mount(tmpfs.destination, "tmpfs", "tmpfs", *tmpfs.options), "--tmpfs")
    standard = [entry for entry in defaults.mounts(options.shm_size) if not _is_replaced(str(entry["destination"]), requested)]
    wanted = [*[entry for entry in own if entry["destination"] not in requested], *requested.values()]
    wanted.sort(key=lambda entry: str(entry["destination"]).count("/"))
    init = [defaults.mount(INIT, "bind", INIT_SOURCE, "bind", "ro")] if options.init else []
    return [*standard, *wanted, *init]


def _is_replaced(place: str, requested: Mapping[str, object]) -> bool:
    return place in requested or ("/dev" in requested and place.startswith("/dev/"))


def _add(requested: dict[str, dict[str, object]], entry: dict[str, object], flag: str) -> None:
    destination = str(entry["destination"])
    if destination in requested:
        raise InnkeeperError(f"{flag}: duplicate mount point: {destination}")
    requested[destination] = entry


def _linux(options: RunOptions, capabilities: list[str]) -> dict[str, object]:
    """Return the `linux` object."""
    linux: dict[str, object] = {"namespaces": [{"type": kind} for kind in defaults.NAMESPACES]}
    if resources := _resources(options):
        linux["resources"] = resources
    linux["sysctl"] = {**defaults.SYSCTLS, **options.sysctls}
    if not options.unmask:
        linux["maskedPaths"] = list(defaults.MASKED_PATHS)
        linux["readonlyPaths"] = list(defaults.READONLY_PATHS)
    if options.seccomp != "unconfined":
        linux["seccomp"] = load_profile(
            Path(options.seccomp) if options.seccomp else None, capabilities, machine=options.architecture or None
        )
    return linux


def _resources(options: RunOptions) -> dict[str, object]:
    resources: dict[str, object] = {}
    if options.memory is not None:
        resources["memory"] = {"limit": options.memory}
    if options.cpus is not None:
        resources["cpu"] = {"period": defaults.CPU_PERIOD, "quota": round(options.cpus * defaults.CPU_PERIOD)}
    if options.pids_limit is not None and options.pids_limit > 0:
        resources["pids"] = {"limit": options.pids_limit}
    return resources
