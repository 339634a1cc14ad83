"""From containerd's specification of a container (config.json) to what the guest is asked for.

What names things of the host is dropped where the guest has its own: namespaces, cgroup path,
SELinux labels, processor numbers. What a VM cannot do is refused by the field's name. Everything else goes
to the agent, which applies or refuses it.
"""

import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim import block_devices, hooks, memory_volumes
from innkeeper.shim.block_devices import BlockDevice
from innkeeper.shim.mounts import below
from innkeeper.wire.pb import agent_pb2

Document = dict[str, Any]

SHARE = "/run/kata-containers/shared/containers"
"""Where the agent has what the host shares."""
SHM = "/run/kata-containers/sandbox/shm"
"""The pod's /dev/shm in the guest."""
ROOT, VOLUMES = "rootfs", "volumes"
"""Folders of a container in the share."""
CONTAINER_TYPE = "io.kubernetes.cri.container-type"
SIZE_HINT = "the size of a VM is set when it boots"
CPU_PERIOD = 100_000
"""Microseconds that a quota is of, if the specification does not say (cgroups(7))."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host that the guest sees as `name` in the container's folder of the share.

    `recursive`: if it is read-only, so is what the host has mounted below it. `follows`: what the
    host mounts below it later appears too.
    """

    name: str
    source: Path
    read_only: bool
    recursive: bool = True
    follows: bool = False


@dataclass(frozen=True)
class Plan:
    """A container for the guest: its document, what is bound into the share, mounted by the agent, and what becomes disks of the VM.

    `pid_namespace`: the path on the host of the one that it joins, or empty for its own.
    """

    document: Document
    binds: tuple[Bind, ...]
    storages: tuple[agent_pb2.Storage, ...]
    devices: tuple[BlockDevice, ...]
    pid_namespace: str


def is_sandbox(document: Document) -> bool:
    """Return whether this is the container that stands for a pod of CRI."""
    return bool((document.get("annotations") or {}).get(CONTAINER_TYPE) == "sandbox")


def check(document: Document) -> None:
    """Raise InnkeeperError for what no VM can do: share the host's namespaces, run its programs in a container, have its devices."""
    _check_namespaces(document)
    _refuse(document)


def _check_namespaces(document: Document) -> None:
    kinds = {namespace["type"] for namespace in document["linux"].get("namespaces", ())}
    for kind in ("network", "pid", "ipc", "uts", "mount"):
        if kind not in kinds:
            raise InnkeeperError(f"linux.namespaces: a container in a VM cannot use the host's {kind} namespace")
    if "user" in kinds:
        raise InnkeeperError("linux.namespaces: user namespaces are not supported yet")


def network_namespace(document: Document) -> str:
    """Return the path of the network namespace that containerd has made, or "" if there is none."""
    return _path_of("network", document)


def _path_of(kind: str, document: Document) -> str:
    return next((str(entry.get("path") or "") for entry in document["linux"]["namespaces"] if entry["type"] == kind), "")


def joining(document: Document, target: str) -> Document:
    """Return a document for the guest whose container joins the pid namespace of the container `target`."""
    linux = document["linux"]
    joined = {"type": "pid", "path": f"container:{target}"}
    return {**document, "linux": {**linux, "namespaces": [*linux["namespaces"], joined]}}


def plan(document: Document, agent_id: str, sysctls: Mapping[str, str], *, selinux: bool = False) -> Plan:
    """Return what the agent is asked for. `sysctls` are the pod's. `selinux`: see `process`. Raises InnkeeperError."""
    check(document)
    binds: list[Bind] = []
    storages: list[agent_pb2.Storage] = []
    mounts = [_mount(index, mount, agent_id, binds, storages) for index, mount in enumerate(document.get("mounts") or ())]
    linux = _linux(document["linux"], sysctls, selinux=selinux)
    root = {**document["root"], "path": f"{SHARE}/{agent_id}/{ROOT}"}
    dropped = ("hooks", "hostname")  # most hooks are the host's; the host name is the sandbox's
    rest = {key: value for key, value in document.items() if key not in dropped}
    if in_guest := (document.get("hooks") or {}).get(hooks.IN_GUEST):
        rest["hooks"] = {hooks.IN_GUEST: in_guest}
    made = {**rest, "root": root, "mounts": mounts, "process": process(document["process"], selinux=selinux), "linux": linux}
    return Plan(made, tuple(binds), tuple(storages), block_devices.of(document["linux"]), _path_of("pid", document))


def with_mounts(document: Document, mounts: Sequence[Document]) -> Document:
    """Return a container's specification with those `mounts` whose places it has no mount for.

    containerd 1.7 mounts files of a sandbox that it has not made, and makes folders in their place.
    """
    files = {mount["destination"] for mount in mounts if Path(mount["source"]).is_file()}
    own = [
        mount for mount in document.get("mounts") or () if mount["destination"] not in files or not Path(str(mount.get("source"))).is_dir()
    ]
    taken = {mount["destination"] for mount in own}
    return {**document, "mounts": [*own, *(mount for mount in mounts if mount["destination"] not in taken)]}


def process(document: Document, *, selinux: bool = False) -> Document:
    """Return a process for the guest, with its SELinux label only if the guest has SELinux.

    A host with SELinux gives every container a label of its own policy, so refusing it would refuse
    every container. AppArmor's profile stays: the agent has one for the names of engines' defaults,
    and refuses others by name.
    """
    return document if selinux else {key: value for key, value in document.items() if key != "selinuxLabel"}


def resources(document: Document) -> Document:
    """Return limits without what is meant for the host: its processors and memory nodes, which `Machine.bind` applies.

    kubelet asks for `memory.oom.group` on every host with cgroup v2, and this protocol has no
    field for it. Other entries of `unified` are left in, and refused.
    """
    made = dict(document)
    if cpu := document.get("cpu"):
        made["cpu"] = {key: value for key, value in cpu.items() if key not in ("cpus", "mems")}
    if unified := {key: value for key, value in (document.get("unified") or {}).items() if key != "memory.oom.group"}:
        made["unified"] = unified
    else:
        made.pop("unified", None)
    return made


def _refuse(document: Document) -> None:
    hooks.check(document)
    if devices := [entry for entry in document["linux"].get("devices") or () if not block_devices.is_block(entry)]:
        raise InnkeeperError(
            f"linux.devices: {devices[0].get('path')}: devices of the host cannot be passed to a VM, but block devices",
            hint="for a privileged container: privileged_without_host_devices = true in containerd's configuration",
        )


def _linux(linux: Document, sysctls: Mapping[str, str], *, selinux: bool) -> Document:
    dropped = ("cgroupsPath", "namespaces", *(() if selinux else ("mountLabel",)))
    made = {key: value for key, value in linux.items() if key not in dropped}
    made["namespaces"] = [{"type": kind} for kind in ("ipc", "uts", "mount")]  # the guest's; the agent adds what else a container has
    if all_sysctls := {**sysctls, **(linux.get("sysctl") or {})}:
        made["sysctl"] = all_sysctls
    if linux.get("resources"):
        made["resources"] = resources(linux["resources"])
    return made


def _mount(index: int, mount: Document, agent_id: str, binds: list[Bind], storages: list[agent_pb2.Storage]) -> Document:
    """Return a mount for the guest. What is on the host is added to `binds`, a volume in memory to `storages`."""
    options = [str(option) for option in mount.get("options") or ()]
    if mount.get("type") != "bind" and not {"bind", "rbind"} & set(options):
        return mount
    if mount["destination"] == "/dev/shm":
        return {**mount, "type": "bind", "source": SHM, "options": ["rbind"]}
    source = Path(mount["source"])
    _check_source(source, mount["destination"], options)
    if (volume := memory_volumes.of(source)) is not None:
        storages += volume.storages
        return {**mount, "type": "bind", "source": volume.path, "options": _guest_options(options, recursive=True)}
    name = f"{VOLUMES}/{index}" + ("" if source.is_dir() else f"/{source.name}")
    read_only, recursive = bool({"ro", "rro"} & set(options)), "rro" in options or not _has_mounts_below(source)
    binds.append(Bind(name, source, read_only, recursive, bool({"slave", "rslave"} & set(options))))
    return {**mount, "source": f"{SHARE}/{agent_id}/{name}", "options": _guest_options(options, recursive)}


def _has_mounts_below(source: Path) -> bool:
    """Return whether the host has something mounted below a folder."""
    folder = source.resolve()
    return source.is_dir() and any(point != folder for point in below(folder))


def _guest_options(options: Sequence[str], recursive: bool) -> list[str]:
    """Return the options of a mount in the guest, for which a share and the host's mounts below it are one mount.

    Read-only there would be so for all of it. Where it is not to be, only the host's mount is read-only.
    """
    made = ["ro" if option == "rro" else option for option in options]
    return made if recursive else ["rw" if option == "ro" else option for option in made]


def _check_source(source: Path, destination: str, options: Sequence[str]) -> None:
    if {"shared", "rshared"} & set(options):
        raise InnkeeperError(f"mounts: {destination}: mounts of a guest cannot appear on the host: bidirectional propagation")
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise InnkeeperError(f"mounts: {destination}: {source}: {error.strerror}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InnkeeperError(f"mounts: {destination}: {source} is neither a folder nor a regular file, a VM cannot share it")


@dataclass(frozen=True)
class Size:
    """What the containers of a VM may use: bytes of memory and processors. 0: no limit is known.

    `shares` is the weight of their processor time. That of a pod is on the pod's own group.
    """

    memory: int = 0
    cpus: int = 0
    shares: int = 0


def size(document: Document) -> Size:
    """Return the limits of a container, or for a sandbox the sum that CRI has written into its annotations."""
    shares = 0
    if is_sandbox(document):
        prefix, notes = "io.kubernetes.cri.sandbox-", document.get("annotations") or {}
        memory, quota, period = (int(notes.get(prefix + name) or 0) for name in ("memory", "cpu-quota", "cpu-period"))
    else:
        limits = document["linux"].get("resources") or {}
        cpu = limits.get("cpu") or {}
        memory = int((limits.get("memory") or {}).get("limit") or 0)
        quota, period, shares = (int(cpu.get(name) or 0) for name in ("quota", "period", "shares"))
    return Size(max(0, memory), _processors(quota, period), shares)


def _processors(quota: int, period: int) -> int:
    """Return how many processors a quota needs, or 0 if there is none."""
    return math.ceil(quota / (period or CPU_PERIOD)) if quota > 0 else 0


def check_fits(resources: Document, memory: int, cpus: int) -> None:
    """Raise InnkeeperError for a limit that a VM with so many bytes and processors cannot give."""
    limit = int((resources.get("memory") or {}).get("limit") or 0)
    if limit > memory:
        raise InnkeeperError(f"linux.resources.memory.limit: {limit} bytes, and the VM has {memory}", hint=SIZE_HINT)
    cpu = resources.get("cpu") or {}
    wanted = _processors(int(cpu.get("quota") or 0), int(cpu.get("period") or 0))
    if wanted > max(cpus, 1):
        raise InnkeeperError(f"linux.resources.cpu.quota: {wanted} processors, and the VM has {cpus}", hint=SIZE_HINT)


def check_pod_resources(resources: Document) -> None:
    """Raise InnkeeperError for a limit of a pod as a whole that is neither processor time nor memory."""
    known = {"cpu": ("shares", "quota", "period", "cpus", "mems"), "memory": ("limit",)}
    for group, fields in resources.items():
        names = (
            {f"{group}.{name}" for name, value in fields.items() if value and name not in known.get(group, ())}
            if group in known
            else {group}
        )
        if fields and names:
            raise InnkeeperError(f"linux.resources.{min(names)}: it cannot be set for a pod's VM as a whole")
