"""Container Device Interface (CDI specification 0.8): apply a vendor's device file to a container.

A CDI file lists, for each device, edits of the OCI specification that the device needs. Kubernetes
names the devices in annotations of the form `cdi.k8s.io/NAME: vendor.com/class=name,...`. The files
must be JSON, even if their name ends in .yaml: JSON is a subset of YAML, and the guest ships no
parser for the rest.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent import loop
from agent.errors import Refused
from agent.pod.devices import device_numbers

if TYPE_CHECKING:
    from agent.container.spec.reader import Document

FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""The directories of CDI files. A device in a later directory replaces one of an earlier."""
PREFIX = "cdi.k8s.io/"
FIELD = "annotations"
ENDINGS = (".json", ".yaml", ".yml")
RETRY_SECONDS = 1.0
MAX_BYTES = 1 << 20
VARIABLE = "VISIBLE_CDI_DEVICES"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*")
_EDITS = frozenset(("env", "deviceNodes", "mounts", "hooks", "additionalGids", "additionalGIDs"))

Edits = Mapping[str, Any]


def wanted(annotations: Mapping[str, str]) -> list[str]:
    """Return the devices that annotations name, each once. Raises Refused for a malformed name."""
    return _names(value for key, value in sorted(annotations.items()) if key.startswith(PREFIX))


def wanted_by_environment(environment: Iterable[str]) -> list[str]:
    """Return the devices that the variable VISIBLE_CDI_DEVICES names. Raises Refused."""
    return _names(entry.partition("=")[2] for entry in environment if entry.partition("=")[0] == VARIABLE)


def _names(values: Iterable[str]) -> list[str]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    for name in names:
        if not _NAME.fullmatch(name):
            raise Refused(FIELD, f"{name[:64]!r} is not VENDOR/CLASS=NAME")
    return list(dict.fromkeys(names))


async def inject(document: "Document", names: list[str], timeout: float, folders: Iterable[str] = FOLDERS) -> "Document":
    """Return the document with the edits of each device applied.

    The CDI files may not have been written yet: they are read again every RETRY_SECONDS, for
    `timeout` seconds. Raises Refused.
    """
    deadline = timeout
    while True:
        devices, common = load(folders)
        missing = [name for name in names if name not in devices]
        if not missing:
            break
        if deadline <= 0:
            raise Refused(FIELD, f"no CDI device {missing[0]} in {' or '.join(folders)} after {timeout:g} s")
        await loop.sleep(RETRY_SECONDS)
        deadline -= RETRY_SECONDS
    edits = [*(common[kind] for kind in dict.fromkeys(name.partition("=")[0] for name in names)), *(devices[name] for name in names)]
    for edit in edits:
        try:
            document = apply(document, edit)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Refused("containerEdits", f"malformed: {type(error).__name__}: {str(error)[:80]}") from None
    return document


def load(folders: Iterable[str]) -> tuple[dict[str, Edits], dict[str, Edits]]:
    """Return (device -> its edits, kind -> edits common to its devices).

    Raises Refused for a malformed file.
    """
    devices: dict[str, Edits] = {}
    common: dict[str, Edits] = {}
    for folder in folders:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name.endswith(ENDINGS):
                _load_file(f"{folder}/{name}", devices, common)
    return devices, common


def _load_file(path: str, devices: dict[str, Edits], common: dict[str, Edits]) -> None:
    with open(path, "rb") as file:
        text = file.read(MAX_BYTES + 1)
    try:
        content = json.loads(text)
        kind = content["kind"]
        for device in content["devices"]:
            devices[f"{kind}={device['name']}"] = device.get("containerEdits", {})
        common[kind] = content.get("containerEdits", {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(path, f"no CDI file in JSON: {type(error).__name__}: {str(error)[:80]}") from None


def apply(document: "Document", edits: Edits) -> "Document":
    """Return the document with one set of edits applied. Raises Refused for unsupported edits."""
    for key in edits:
        if key not in _EDITS:
            raise Refused(f"containerEdits.{key}", "is not applied in a guest")
    process, linux = dict(document.get("process", {})), dict(document["linux"])
    names = {entry.partition("=")[0] for entry in edits.get("env", ())}
    process["env"] = [entry for entry in process.get("env", ()) if entry.partition("=")[0] not in names] + list(edits.get("env", ()))
    groups = [*edits.get("additionalGids", ()), *edits.get("additionalGIDs", ())]
    if groups:
        user = dict(process.get("user", {}))
        process["user"] = {**user, "additionalGids": list(dict.fromkeys([*user.get("additionalGids", ()), *groups]))}
    for node in edits.get("deviceNodes", ()):
        linux = _with_node(linux, node)
    mounts = [*document.get("mounts", ()), *[_mount(mount) for mount in edits.get("mounts", ())]]
    hooks = dict(document.get("hooks", {}))
    for hook in edits.get("hooks", ()):
        entry = {key: value for key, value in hook.items() if key != "hookName"}
        hooks[hook["hookName"]] = [*hooks.get(hook["hookName"], ()), entry]
    return {**document, "process": process, "linux": linux, "mounts": mounts, **({"hooks": hooks} if hooks else {})}


def _with_node(linux: dict[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `linux` object with a device node and a rule that allows access to it.

    Type and numbers that the file leaves out are those of the guest's node at `hostPath`.
    """
    source = node.get("hostPath") or node["path"]
    kind, major, minor = node.get("type", ""), node.get("major"), node.get("minor")
    if not kind or major is None or minor is None:
        try:
            kind, major, minor = device_numbers(source)
        except OSError as error:
            raise Refused("containerEdits.deviceNodes", f"{source}: {error.strerror}") from None
        if not kind:
            raise Refused("containerEdits.deviceNodes", f"{source} is no device")
    entry = {"path": node["path"], "type": kind, "major": major, "minor": minor}
    entry |= {key: node[key] for key in ("fileMode", "uid", "gid") if key in node}
    rule = {"allow": True, "type": kind, "major": major, "minor": minor, "access": node.get("permissions") or "rwm"}
    resources = dict(linux.get("resources", {}))
    resources["devices"] = [*resources.get("devices", ()), rule]
    others = [device for device in linux.get("devices", ()) if device.get("path") != node["path"]]
    return {**linux, "devices": [*others, entry], "resources": resources}


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    options = list(mount.get("options", ()))
    kind = mount.get("type") or ("bind" if {"bind", "rbind"} & set(options) else "")
    entry = {"destination": mount["containerPath"], "source": mount["hostPath"], "options": options}
    return {**entry, **({"type": kind} if kind else {})}
