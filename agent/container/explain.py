"""The plan of a spec in words: what would be made, with what, in which order and why.

Nothing is opened or executed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields

from agent.container import create
from agent.container.cgroup.device_program import rules_of
from agent.container.cgroup.plan import writes
from agent.container.fd_set import FdSet
from agent.container.host_context import HostContext
from agent.container.init import child
from agent.container.init.plan import ChildPlan
from agent.container.init.prepare import NO_CAPABILITIES, bits, init_plan, process_plan
from agent.container.rootfs.mount_plan import MountPlan
from agent.container.rootfs.operation import Operation
from agent.container.spec.document import Spec
from agent.container.spec.hooks import KINDS
from agent.container.spec.linux import NAMESPACES
from agent.container.spec.process import NO_PROCESS, Process
from agent.container.spec.resources import DeviceRule
from agent.linux.capability import NAMES

DRY = -1
SYSCTL_NAME = str.maketrans("/.", "./")
"""Translates a path to a sysctl's name as sysctl(8) writes it: an interface's dot becomes a slash.
"""


def plan_lines(spec: Spec, host: HostContext, id: str = "ID") -> Iterator[str]:
    """Yield the lines of the plan: each section's title, then its lines, indented.

    Raises Refused in the same words as creating the container would.
    """
    process = spec.process or NO_PROCESS
    fd_set = FdSet(dry=True)
    root, name = host.cgroup_of(spec.linux, id)
    plan = process_plan(process, DRY, spec.linux.seccomp)
    mounts = MountPlan(spec, str(root / name), fd_set)
    init_plan(spec, process, plan, mounts, fd_set)
    yield from [f"warning: {warning}" for warning in (*spec.warnings, *plan.warnings, *mounts.warnings)]
    yield from _section("namespaces", _namespaces(spec, host))
    yield from _section(f"cgroup {root / name}", _cgroup(spec, process))
    yield from _section("mounts", _operations(plan.mounts))
    yield from _section("devices", _operations(plan.devices))
    yield from _section("restrictions", _operations(plan.restrictions))
    yield from _section("settings", _settings(spec, plan))
    yield from _section("process", _process(process, plan))
    yield from _section("hooks", _hooks(spec))
    yield from _section("steps of the parent", [f"{step}: {why}" for step, _, why in create.STEPS])
    yield from _section("steps of the child", [f"{step}: {why}" for step, _, why in child.INIT_STEPS])


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield title
        yield from [f"  {line}" for line in lines]


def _namespaces(spec: Spec, host: HostContext) -> list[str]:
    names = {kernels: name for name, kernels in NAMESPACES.items()}
    overrides = host.overrides()
    lines = []
    for kind, listed in spec.linux.namespaces.items():
        path = listed or overrides.get(kind)
        lines.append(f"{names[kind]}: {f'join {path}' if path else 'new'}")
    for title, mappings in (("users", spec.linux.uid_mappings), ("groups", spec.linux.gid_mappings)):
        lines += [f"map {title} {inner} to {outer} ({size})" for inner, outer, size in mappings]
    lines += [f"offset {clock} by {seconds}.{nanoseconds:09} s" for clock, seconds, nanoseconds in spec.linux.time_offsets]
    return lines + [device.describe() for device in spec.linux.net_devices]


def _cgroup(spec: Spec, process: Process) -> list[str]:
    lines = [write.describe() for write in writes(spec.linux.resources)]
    return lines + [_rule(rule) for rule in rules_of(spec.linux.resources.devices, process.has_mknod)]


def _rule(rule: DeviceRule) -> str:
    major, minor = ["*" if number is None else str(number) for number in (rule.major, rule.minor)]
    return f"{'allow' if rule.allow else 'deny'} device {rule.type} {major}:{minor} {rule.access}"


def _operations(operations: Sequence[Operation]) -> list[str]:
    return [operation.describe() for operation in operations]


def _settings(spec: Spec, plan: ChildPlan) -> list[str]:
    lines = [f"{title} {value}" for title, value in (("hostname", spec.hostname), ("domainname", spec.domainname)) if value]
    lines += [f"sysctl {path.translate(SYSCTL_NAME)} = {os.fsdecode(value)}" for path, value in plan.sysctl]
    if plan.personality is not None:
        lines.append(f"personality {plan.personality:#x}")
    if spec.linux.memory_policy is not None:
        lines.append(f"memory policy {spec.linux.memory_policy.mode:#x} of nodes {spec.linux.memory_policy.nodes or 'by default'}")
    return lines


def _process(process: Process, plan: ChildPlan) -> list[str]:
    if not process.args:
        return ["none: it cannot be started"]
    groups = " ".join(map(str, process.user.groups)) or "none"
    lines = [
        f"run {' '.join(process.args)} in {process.cwd}{' on a terminal' if process.terminal else ''}",
        f"as user {process.user.uid}, group {process.user.gid}, groups {groups}, umask {process.user.umask:04o}",
    ]
    capabilities = process.capabilities or NO_CAPABILITIES
    for kind in fields(capabilities):
        names = [NAMES[number] for number in bits(getattr(capabilities, kind.name))]
        lines.append(f"{kind.name} capabilities: {' '.join(names) or 'none'}")
    lines += [f"limit {kind} to {soft}, at most {hard}" for kind, soft, hard in process.rlimits]
    lines += [f"write {os.fsdecode(value)!r} to /proc/{path}" for path, value in plan.labels]
    if process.oom_score_adj is not None:
        lines.append(f"oom_score_adj {process.oom_score_adj}")
    if process.scheduler is not None:
        lines.append(f"scheduler {process.scheduler}")
    if process.io_priority is not None:
        lines.append(f"io priority class {process.io_priority >> 13}, {process.io_priority & 7}")
    lines.append(f"no_new_privs {'set' if process.no_new_privs else 'not set'}")
    if plan.seccomp is not None:
        notified = ", its listener sent away" if plan.notifies else ""
        lines.append(f"seccomp filter of {len(plan.seccomp.instructions) // 8} instructions, flags {plan.seccomp.flags:#x}{notified}")
    return lines


def _hooks(spec: Spec) -> list[str]:
    lines = []
    for kind, field in KINDS.items():
        for hook in getattr(spec.hooks, field):
            limit = "without a time limit" if hook.timeout is None else f"within {hook.timeout} s"
            lines.append(f"{kind}: {hook.path} {limit}")
    return lines
