"""Converts Kata's protobuf form of the OCI specification into the JSON document of the latter.

The messages have no presence for plain values, so an absent value and a zero look the same. The
code of each field decides what its zero means. Everything else is copied into the document,
whether or not the container core applies it: the core refuses unsupported fields by name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent.container.spec.reader import CachedDocument, Document
from agent.errors import AgentError

if TYPE_CHECKING:
    from innkeeper.wire.pb import oci_pb2

PROFILES_BYTES = 128 << 10
"""Bytes of seccomp profiles to keep, as messages.

That of docker has 8 kB, and takes 100 kB as a document.
"""
_profiles: dict[bytes, CachedDocument] = {}

_CAPABILITY_SETS = ("Bounding", "Effective", "Inheritable", "Permitted", "Ambient")
_HOOKS = ("Prestart", "CreateRuntime", "CreateContainer", "StartContainer", "Poststart", "Poststop")


def spec_document(spec: "oci_pb2.Spec") -> Document:
    """Return the document of a whole container. Raises AgentError if `linux` is missing."""
    if not spec.HasField("Linux"):
        raise AgentError("Spec does not contain linux field")
    return _set(
        ociVersion=spec.Version,
        process=process_document(spec.Process) if spec.HasField("Process") else None,
        root=_set(path=spec.Root.Path, readonly=spec.Root.Readonly) if spec.HasField("Root") else None,
        hostname=spec.Hostname,
        mounts=[_mount(mount) for mount in spec.Mounts],
        hooks=_hooks(spec.Hooks),
        annotations=dict(spec.Annotations),
        linux=_linux(spec.Linux),
        solaris={"dummy": spec.Solaris.dummy} if spec.HasField("Solaris") else None,
        windows={"dummy": spec.Windows.dummy} if spec.HasField("Windows") else None,
    )


def process_document(process: "oci_pb2.Process") -> Document:
    """Return the document of one process. An oomScoreAdj of 0 is left out."""
    return _set(
        terminal=process.Terminal,
        consoleSize=_set(height=process.ConsoleSize.Height, width=process.ConsoleSize.Width),
        user=_set(
            uid=process.User.UID,
            gid=process.User.GID,
            additionalGids=list(process.User.AdditionalGids),
            username=process.User.Username,
        ),
        args=list(process.Args),
        env=list(process.Env),
        cwd=process.Cwd,
        capabilities={name.lower(): list(getattr(process.Capabilities, name)) for name in _CAPABILITY_SETS}
        if process.HasField("Capabilities")
        else None,
        rlimits=[{"type": limit.Type, "hard": limit.Hard, "soft": limit.Soft} for limit in process.Rlimits],
        noNewPrivileges=process.NoNewPrivileges,
        apparmorProfile=process.ApparmorProfile,
        oomScoreAdj=process.OOMScoreAdj,
        selinuxLabel=process.SelinuxLabel,
    )


def resources_document(resources: "oci_pb2.LinuxResources") -> Document:
    """Return the document of `linux.resources`.

    A limit of 0 is left out. A negative limit is the specification's "unlimited".
    """
    memory, cpu = resources.Memory, resources.CPU
    return _set(
        devices=[_device_rule(rule) for rule in resources.Devices],
        memory=_set(
            limit=memory.Limit,
            reservation=memory.Reservation,
            swap=memory.Swap,
            kernel=memory.Kernel,
            kernelTCP=memory.KernelTCP,
            swappiness=memory.Swappiness,
            disableOOMKiller=memory.DisableOOMKiller,
        ),
        cpu=_set(
            shares=cpu.Shares,
            quota=cpu.Quota,
            period=cpu.Period,
            realtimeRuntime=cpu.RealtimeRuntime,
            realtimePeriod=cpu.RealtimePeriod,
            cpus=cpu.Cpus,
            mems=cpu.Mems,
        ),
        pids=_set(limit=resources.Pids.Limit),
        blockIO=_block_io(resources.BlockIO),
        hugepageLimits=[{"pageSize": limit.Pagesize, "limit": limit.Limit} for limit in resources.HugepageLimits],
        network=_set(
            classID=resources.Network.ClassID,
            priorities=[{"name": entry.Name, "priority": entry.Priority} for entry in resources.Network.Priorities],
        ),
    )


def _set(**fields: object) -> Document:
    """Return the fields that are set, which means not None, not zero and not empty.

    An object without any such field is empty, and so its parent leaves it out too.
    """
    return {name: value for name, value in fields.items() if value}


def _each(messages: Iterable[Any], convert: Callable[[Any], Document]) -> list[Document]:
    return [convert(message) for message in messages]


def _mount(mount: "oci_pb2.Mount") -> Document:
    return _set(destination=mount.destination, source=mount.source, type=mount.type, options=list(mount.options))


def _hooks(hooks: "oci_pb2.Hooks") -> Document:
    return {
        name[0].lower() + name[1:]: [
            _set(path=hook.Path, args=list(hook.Args), env=list(hook.Env), timeout=hook.Timeout) for hook in getattr(hooks, name)
        ]
        for name in _HOOKS
        if getattr(hooks, name)
    }


def _linux(linux: "oci_pb2.Linux") -> Document:
    return _set(
        uidMappings=_each(linux.UIDMappings, _mapping),
        gidMappings=_each(linux.GIDMappings, _mapping),
        sysctl=dict(linux.Sysctl),
        resources=resources_document(linux.Resources),
        cgroupsPath=linux.CgroupsPath,
        namespaces=[_set(type=namespace.Type, path=namespace.Path) for namespace in linux.Namespaces],
        devices=_each(linux.Devices, _device),
        seccomp=_seccomp(linux.Seccomp) if linux.HasField("Seccomp") else None,
        rootfsPropagation=linux.RootfsPropagation,
        maskedPaths=list(linux.MaskedPaths),
        readonlyPaths=list(linux.ReadonlyPaths),
        mountLabel=linux.MountLabel,
        intelRdt=_set(l3CacheSchema=linux.IntelRdt.L3CacheSchema),
    )


def _mapping(mapping: "oci_pb2.LinuxIDMapping") -> Document:
    return {"hostID": mapping.HostID, "containerID": mapping.ContainerID, "size": mapping.Size}


def _device(device: "oci_pb2.LinuxDevice") -> Document:
    numbers = {} if device.Type == "p" else {"major": device.Major, "minor": device.Minor}
    return {
        **_set(path=device.Path, type=device.Type, fileMode=device.FileMode),
        **numbers,
        "uid": device.UID,
        "gid": device.GID,
    }


def _device_rule(rule: "oci_pb2.LinuxDeviceCgroup") -> Document:
    """Return a rule of the device cgroup.

    0:0 means all devices: no device has that number, and it is what a rule without numbers looks
    like when it arrives. A single zero is a number: /dev/tty is 5:0.
    """
    numbers = {"major": rule.Major, "minor": rule.Minor} if rule.Major or rule.Minor else {}
    return {"allow": rule.Allow, **_set(type=rule.Type, access=rule.Access), **numbers}


def _block_io(block: "oci_pb2.LinuxBlockIO") -> Document:
    return _set(
        weight=block.Weight,
        leafWeight=block.LeafWeight,
        weightDevice=[
            {"major": entry.Major, "minor": entry.Minor, **_set(weight=entry.Weight, leafWeight=entry.LeafWeight)}
            for entry in block.WeightDevice
        ],
        throttleReadBpsDevice=_each(block.ThrottleReadBpsDevice, _throttle),
        throttleWriteBpsDevice=_each(block.ThrottleWriteBpsDevice, _throttle),
        throttleReadIOPSDevice=_each(block.ThrottleReadIOPSDevice, _throttle),
        throttleWriteIOPSDevice=_each(block.ThrottleWriteIOPSDevice, _throttle),
    )


def _throttle(entry: "oci_pb2.LinuxThrottleDevice") -> Document:
    return {"major": entry.Major, "minor": entry.Minor, "rate": entry.Rate}


def _seccomp(seccomp: "oci_pb2.LinuxSeccomp") -> Document:
    """Return the document of a seccomp profile, and the same object for equal messages.

    Most containers come with the same profile, which has hundreds of names in it.
    """
    key = seccomp.SerializeToString()
    cached = _profiles.get(key)
    if cached is None:
        cached = CachedDocument(_seccomp_document(seccomp))
        if len(key) + sum(map(len, _profiles)) > PROFILES_BYTES:
            _profiles.clear()
        if len(key) <= PROFILES_BYTES:
            _profiles[key] = cached
    return cached


def _seccomp_document(seccomp: "oci_pb2.LinuxSeccomp") -> Document:
    return _set(
        defaultAction=seccomp.DefaultAction,
        architectures=list(seccomp.Architectures),
        flags=list(seccomp.Flags),
        syscalls=[_syscall(syscall) for syscall in seccomp.Syscalls],
    )


def _syscall(syscall: "oci_pb2.LinuxSyscall") -> Document:
    """Return one rule of a seccomp profile. errnoRet has presence, so its 0 is a value."""
    errno: Mapping[str, object] = {"errnoRet": syscall.errnoret} if syscall.WhichOneof("ErrnoRet") else {}
    arguments = [
        {"index": argument.Index, "value": argument.Value, "valueTwo": argument.ValueTwo, "op": argument.Op} for argument in syscall.Args
    ]
    return {**_set(names=list(syscall.Names), action=syscall.Action, args=arguments), **errno}
