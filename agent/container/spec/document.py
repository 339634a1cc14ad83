"""The OCI runtime specification as frozen objects.

The document is parsed and checked before anything is created. An error names the path of the field.
`parse_spec` takes the JSON document. The parts are in the other modules of this package.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.container.spec.hooks import NO_HOOKS, Hooks, parse_hooks
from agent.container.spec.linux import Linux, parse_linux
from agent.container.spec.mounts import Mount, parse_mount
from agent.container.spec.process import Process, read_process
from agent.container.spec.reader import SpecReader, absolute
from agent.container.spec.resources import Resources, read_resources
from agent.errors import Refused

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)([-+].*)?")
ID = re.compile(r"[A-Za-z0-9_+.-]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything a container is made from.

    `warnings` lists what the specification permits to ignore.
    """

    version: str
    root_path: str
    root_readonly: bool
    process: Process | None
    hostname: str
    domainname: str
    mounts: tuple[Mount, ...]
    annotations: Mapping[str, str]
    linux: Linux
    hooks: Hooks = NO_HOOKS
    warnings: tuple[str, ...] = field(default=())


def check_id(value: str) -> str:
    """Return a container's or process's id if it is safe as a part of a path.

    Raises Refused for an id that could leave its directory.
    """
    if not ID.fullmatch(value) or value in (".", ".."):
        raise Refused("id", f"{value[:64]!r} is not of 1 to 255 of the characters A-Z a-z 0-9 _ + . -")
    return value


def parse_spec(document: Mapping[str, object], sandbox: frozenset[str] = frozenset(), bundle: str = "") -> Spec:
    """Return the document as a `Spec`. Raises Refused with the field's path.

    `sandbox` names the namespaces (`net`, `ipc`, ...) that the caller's sandbox owns although the
    spec does not list them: their sysctls may be set. `bundle` is the directory of relative paths
    of the root and of bind mounts. Without one, relative paths are refused.
    """
    warnings: list[str] = []
    reader = SpecReader(document, "", warnings)
    version = _version(reader)
    reader.refuse_known("solaris", "windows", "vm", "zos", "freebsd", reason="of another platform")
    root = reader.required_child("root")
    root_path = _below_bundle(root.string("path"), bundle)
    root_readonly = root.boolean("readonly")
    root.finish()
    process_reader = reader.child("process")
    process = read_process(process_reader) if process_reader else None
    mounts = tuple([parse_mount(mount, bundle) for mount in reader.children("mounts")])
    linux = parse_linux(SpecReader(reader.get("linux") or {}, "linux", warnings), sandbox)
    hostname, domainname = _host_name(reader, "hostname"), _host_name(reader, "domainname")
    annotations = reader.mapping("annotations")
    hooks = parse_hooks(reader.child("hooks"))
    reader.finish()
    spec = Spec(
        version=version,
        root_path=root_path,
        root_readonly=root_readonly,
        process=process,
        hostname=hostname,
        domainname=domainname,
        mounts=mounts,
        annotations=annotations,
        linux=linux,
        hooks=hooks,
        warnings=tuple(warnings),
    )
    _check_together(spec)
    return spec


def parse_process(document: Mapping[str, object]) -> Process:
    """Return the document of one more process (`exec`) as a `Process`. Raises Refused."""
    return read_process(SpecReader(document, "process", []))


def parse_resources(document: Mapping[str, object]) -> Resources:
    """Return the document of an update as `Resources`. Raises Refused."""
    return read_resources(SpecReader(document, "linux.resources", []))


def _version(reader: SpecReader) -> str:
    version = reader.string("ociVersion", "1.0.0")
    match = VERSION.fullmatch(version)
    if match is None or match.group(1) != "1":
        raise Refused("ociVersion", f"{version!r} is not a version 1.x.y")
    return version


def _below_bundle(path: str, bundle: str) -> str:
    return absolute(os.path.join(bundle, path) if path else path, "root.path")


def _host_name(reader: SpecReader, key: str) -> str:
    name = reader.string(key)
    if len(name.encode("utf-8", "surrogateescape")) > 64:
        raise Refused(key, "longer than 64 bytes")
    return name


def _check_together(spec: Spec) -> None:
    """Raise Refused for fields that contradict each other."""
    namespaces = spec.linux.namespaces
    if "mnt" not in namespaces:
        raise Refused("linux.namespaces", "no mount namespace")
    if namespaces["mnt"] is not None and namespaces.get("user", "") is None:
        raise Refused("linux.namespaces", "a mount namespace to join is not the new user namespace's, which may not mount in it")
    for key in ("hostname", "domainname"):
        if getattr(spec, key) and "uts" not in namespaces:
            raise Refused(key, "needs a uts namespace")
    for mount in spec.mounts:
        if mount.type == "mqueue" and "ipc" not in namespaces:
            raise Refused(f"{mount.field}.type", "mqueue needs an ipc namespace")
        if mount.idmap and not mount.uid_mappings and "user" not in namespaces:
            raise Refused(f"{mount.field}.options", "idmap without mappings needs a user namespace")
