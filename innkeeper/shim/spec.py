"""From containerd's specification of a container (config.json) to what the guest is asked for.

What names things of the host is dropped where the guest has its own: namespaces, cgroup path,
SELinux labels, processor numbers. What a VM cannot do is refused by the field's name. Everything
else goes to the agent, which applies or refuses it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim import block_devices, copied_volumes, hooks
from innkeeper.shim.block_devices import BlockDevice
from innkeeper.shim.volumes import ROOT, SHARE, Bind, Volumes
from innkeeper.wire.pb import agent_pb2

Document = dict[str, Any]

CONTAINER_TYPE = "io.kubernetes.cri.container-type"
SIZE_HINT = "the size of a VM is set when it boots"
CPU_PERIOD = 100_000
"""Microseconds that a quota is of, if the specification does not say (cgroups(7))."""


@dataclass(frozen=True)
class ContainerPlan:
    """A container for the guest.

    It has a document, what is bound into the share, what the agent mounts, and what becomes disks
    of the VM. `pid_namespace`: the path on the host of the one that it joins, or empty for its own.
    Without a share, `copies` are what of the host is copied, and `log` the file for the container's
    last message, if there is one.
    """

    document: Document
    binds: tuple[Bind, ...]
    storages: tuple[agent_pb2.Storage, ...]
    devices: tuple[BlockDevice, ...]
    pid_namespace: str
    copies: tuple[Path, ...]
    log: Path | None


def is_sandbox(document: Document) -> bool:
    """Return whether this is the container that stands for a pod of CRI."""
    return bool((document.get("annotations") or {}).get(CONTAINER_TYPE) == "sandbox")


def check(document: Document) -> None:
    """Raise InnkeeperError for what no VM can do.

    It cannot share the host's namespaces, run its programs in a container, or have its devices.
    """
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


def pid_namespace(document: Document) -> str:
    """Return the host path of the pid namespace that a container joins, or "" for its own."""
    return _path_of("pid", document)


def _path_of(kind: str, document: Document) -> str:
    return next((str(entry.get("path") or "") for entry in document["linux"]["namespaces"] if entry["type"] == kind), "")


def joining(document: Document, target: str) -> Document:
    """Return the document of a container that joins the pid namespace of `target`."""
    linux = document["linux"]
    joined = {"type": "pid", "path": f"container:{target}"}
    return {**document, "linux": {**linux, "namespaces": [*linux["namespaces"], joined]}}


def plan(document: Document, agent_id: str, sysctls: Mapping[str, str], *, selinux: bool = False, shares: bool = True) -> ContainerPlan:
    """Return what the agent is asked for. `sysctls` are the pod's. `selinux`: see `process`.

    `shares`: the VM has a share. Raises InnkeeperError.
    """
    check(document)
    volumes = Volumes(agent_id, shares=shares)
    mounts = [volumes.mount(index, mount) for index, mount in enumerate(document.get("mounts") or ())]
    linux = _linux(document["linux"], sysctls, selinux=selinux)
    root = {**document["root"], "path": f"{SHARE}/{agent_id}/{ROOT}"}
    dropped = ("hooks", "hostname")  # most hooks are the host's; the host name is the sandbox's
    rest = {key: value for key, value in document.items() if key not in dropped}
    if in_guest := (document.get("hooks") or {}).get(hooks.IN_GUEST):
        rest["hooks"] = {hooks.IN_GUEST: in_guest}
    made = {**rest, "root": root, "mounts": mounts, "process": process(document["process"], selinux=selinux), "linux": linux}
    log = None
    if volumes.log is not None:
        log, destination = volumes.log
        made["annotations"] = copied_volumes.with_message_path(document.get("annotations") or {}, destination)
    return ContainerPlan(
        document=made,
        binds=tuple(volumes.binds),
        storages=tuple(volumes.storages),
        devices=block_devices.of(document["linux"]),
        pid_namespace=pid_namespace(document),
        copies=tuple(volumes.copies),
        log=log,
    )


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
    """Return limits without those for the host: its processors and memory nodes.

    `Machine.bind` applies these. kubelet asks for `memory.oom.group` on every host with cgroup v2,
    and this protocol has no field for it. Other entries of `unified` are left in, and refused.
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


@dataclass(frozen=True)
class Size:
    """What the containers of a VM may use: bytes of memory and processors. 0: no limit is known.

    `shares` is the weight of their processor time. That of a pod is on the pod's own group.
    """

    memory: int = 0
    cpus: int = 0
    shares: int = 0


def size(document: Document) -> Size:
    """Return the limits of a container, or for a sandbox their sum by CRI's annotations."""
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
    """Raise InnkeeperError for a limit of a pod that is neither processor time nor memory."""
    known = {"cpu": ("shares", "quota", "period", "cpus", "mems"), "memory": ("limit",)}
    for group, fields in resources.items():
        names = (
            {f"{group}.{name}" for name, value in fields.items() if value and name not in known.get(group, ())}
            if group in known
            else {group}
        )
        if fields and names:
            raise InnkeeperError(f"linux.resources.{min(names)}: it cannot be set for a pod's VM as a whole")
