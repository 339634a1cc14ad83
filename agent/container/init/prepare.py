"""From a `Spec` to a `ChildPlan`: the parent's half of the containment.

Opens, compiles and encodes. Creates nothing that lasts. Its descriptors are in `FdSet`, which the
caller closes after the fork or after an error.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import replace

from agent.container.fd_set import FdSet
from agent.container.hooks import prepare as prepare_hook
from agent.container.init.plan import ChildPlan
from agent.container.rootfs.idmap import Mappings
from agent.container.rootfs.mount_plan import MountPlan
from agent.container.seccomp import compile_profile
from agent.container.spec import labels
from agent.container.spec.document import Spec
from agent.container.spec.process import Capabilities, Process, encode
from agent.container.spec.seccomp import Seccomp
from agent.errors import Refused
from agent.linux.capability import CAP_SYS_ADMIN, NAMES, Sets, capget, last_capability
from agent.linux.libc import AT_RECURSIVE
from agent.linux.numa import NodeMask, node_mask
from agent.linux.process import rlimit_value, vector

NO_CAPABILITIES = Capabilities()


def bits(mask: int) -> Iterable[int]:
    """Return the numbers of the bits that are set."""
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def host_id(inner: int, mappings: Mappings, field: str) -> int:
    """Return a container's id as the agent sees it. Without mappings it is the same.

    Raises Refused for an id that is not mapped.
    """
    for first, outer, size in mappings:
        if first <= inner < first + size:
            return outer + inner - first
    if mappings:
        raise Refused(field, f"{inner} is not mapped in the user namespace")
    return inner


def check_ids(process: Process, uid_mappings: Mappings, gid_mappings: Mappings) -> int:
    """Return the program's uid as the agent sees it.

    Raises Refused for ids that the user namespace does not map.
    """
    for gid in (process.user.gid, *process.user.groups):
        host_id(gid, gid_mappings, "process.user.gid")
    return host_id(process.user.uid, uid_mappings, "process.user.uid")


def granted(capabilities: Capabilities, warnings: list[str]) -> Capabilities:
    """Return the requested capabilities that the agent itself holds.

    The specification wants a warning for the others, not an error.
    """
    _effective, held, inheritable = capget()
    lacking = {"permitted": held, "effective": held, "inheritable": held | inheritable, "ambient": held}
    if not any(getattr(capabilities, kind) & ~mask for kind, mask in lacking.items()):
        return capabilities
    for kind, mask in lacking.items():
        beyond = getattr(capabilities, kind) & ~mask
        if beyond:
            names = " ".join([NAMES[number] for number in bits(beyond)])
            warnings.append(f"process.capabilities.{kind}: the agent itself lacks {names}, not granted")
    return replace(capabilities, **{kind: getattr(capabilities, kind) & mask for kind, mask in lacking.items()})


def process_plan(process: Process, control: int, seccomp: Seccomp | None) -> ChildPlan:
    """Return the part of the plan that every process needs, the first one and those of exec.

    Raises Refused.
    """
    warnings: list[str] = []
    capabilities = granted(process.capabilities or NO_CAPABILITIES, warnings)
    filter_ = compile_profile(seccomp) if seccomp else None
    if filter_ is not None:
        warnings += [f"linux.seccomp.syscalls: {name} is unknown here, the default action answers it" for name in filter_.unknown]
    final = Sets(capabilities.effective, capabilities.permitted, capabilities.inheritable)
    interim = final
    extra = 1 << CAP_SYS_ADMIN if filter_ is not None and not process.no_new_privs else 0
    if extra:
        interim = Sets(capabilities.effective | extra, capabilities.permitted | extra, capabilities.inheritable)
    env = encode(process.env)
    home = next((entry for entry in process.env if entry.startswith("HOME=")), "HOME=")
    if home == "HOME=":
        env = [entry for entry in env if entry != b"HOME="]
    plan = ChildPlan(
        control=control,
        process=process,
        env=env,
        interim=interim,
        final=final,
        argv=vector(encode(process.args)),
        home_missing=home == "HOME=",
        seccomp=filter_,
        labels=labels.exec_writes(process.apparmor_profile, process.selinux_label),
        key_label=os.fsencode(process.selinux_label),
        notifies=seccomp is not None and seccomp.listener is not None,
        warnings=warnings,
    )
    if process.terminal and not any(entry.startswith("TERM=") for entry in process.env):
        plan.env.append(b"TERM=xterm")
    plan.rlimits = [(kind, rlimit_value(soft, hard)) for kind, soft, hard in process.rlimits]
    known = (1 << last_capability() + 1) - 1
    plan.drop_bounding = list(bits(known & ~capabilities.bounding))
    plan.ambient = list(bits(capabilities.ambient))
    _effective, held, inheritable = capget()
    if capabilities.inheritable & ~capabilities.bounding & ~inheritable:
        # A capability can become inheritable only while the bounding set still contains it.
        plan.inheritable_first = Sets(held, held, capabilities.inheritable)
    return plan


def inherit_from_init(process: Process, init: Process) -> Process:
    """Return an exec's process with its unset fields taken from the container's first process.

    What is set is the caller's decision, and may exceed what the first process has (`docker exec
    --privileged`). Nothing is added to it.
    """
    return replace(
        process,
        capabilities=init.capabilities or NO_CAPABILITIES if process.capabilities is None else process.capabilities,
        rlimits=process.rlimits or init.rlimits,
        no_new_privs=init.no_new_privs if process.no_new_privs is None else process.no_new_privs,
        oom_score_adj=init.oom_score_adj if process.oom_score_adj is None else process.oom_score_adj,
        scheduler=process.scheduler or init.scheduler,
        io_priority=init.io_priority if process.io_priority is None else process.io_priority,
        cpu_affinity=process.cpu_affinity or init.cpu_affinity,
        apparmor_profile=init.apparmor_profile if process.apparmor_profile is None else process.apparmor_profile,
        selinux_label=process.selinux_label or init.selinux_label,
    )


def init_plan(spec: Spec, process: Process, plan: ChildPlan, mounts: MountPlan, fd_set: FdSet) -> None:
    """Complete the plan of a container's first process. Raises Refused, OSError."""
    linux = spec.linux
    if not fd_set.dry:
        plan.root = _open_root(spec, fd_set)
    plan.hostname = os.fsencode(spec.hostname)
    plan.domainname = os.fsencode(spec.domainname)
    plan.sysctl = [(path, os.fsencode(value)) for path, value in linux.sysctl]
    plan.personality = linux.personality
    plan.time_offsets = b"".join([b"%s %d %d\n" % (clock.encode(), secs, nanos) for clock, secs, nanos in linux.time_offsets])
    plan.loopback = linux.namespaces.get("net", "") is None
    plan.console = process.terminal
    plan.memory_policy = memory_policy(spec)
    plan.mounts = mounts.mounts()
    plan.devices = mounts.devices()
    plan.restrictions = mounts.restrictions()
    plan.has_hooks = bool(spec.hooks.prestart or spec.hooks.create_runtime or spec.hooks.create_container)
    plan.container_hooks = tuple([prepare_hook(hook) for hook in spec.hooks.create_container])
    plan.start_hooks = tuple([prepare_hook(hook, process.env) for hook in spec.hooks.start_container])


def memory_policy(spec: Spec) -> tuple[int, NodeMask | None] | None:
    """Return prepared arguments of set_mempolicy(2), or None if the spec has no memory policy."""
    policy = spec.linux.memory_policy
    return None if policy is None else (policy.mode, node_mask(policy.nodes))


def _open_root(spec: Spec, fd_set: FdSet) -> int:
    """Return a detached copy of the root's mounts. Raises Refused if it is not a directory.

    The type is checked on the descriptor: the path may lead elsewhere in the meantime.
    """
    try:
        root = fd_set.tree(spec.root_path, AT_RECURSIVE, follow=False)
    except OSError as error:
        raise Refused("root.path", f"{spec.root_path}: {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISDIR(os.fstat(root).st_mode):
        raise Refused("root.path", f"{spec.root_path} is not a directory")
    return root
