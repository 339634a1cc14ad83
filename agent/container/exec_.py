"""One more process in a container (`exec`): the parent's half.

The process gets what its caller asks for, and the rest as the container's first process has it. It
is born in the container's cgroup, or in one below it that the caller names. A container may have
made cgroups below its own and enabled controllers for them. Its own cgroup then takes no process
(cgroups(7), "no internal processes"), and the new process joins the first one's cgroup, unless the
caller named one.
"""

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from agent.container.fd_set import FdSet
from agent.container.init import child
from agent.container.init.plan import ChildPlan
from agent.container.init.prepare import check_ids, inherit_from_init, memory_policy, process_plan
from agent.container.namespaces import TemporaryNamespaces
from agent.container.process import ContainerProcess
from agent.container.spec.process import NO_PROCESS, Process
from agent.errors import Refused, StepFailed
from agent.linux import process as p
from agent.linux import procfs
from agent.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

if TYPE_CHECKING:
    from agent.container.container import Container


async def join(container: "Container", added: ContainerProcess, process: Process, group: str | None, frozen: bool) -> None:
    """Contain and run a process. Raises Refused, StepFailed, and then the caller ends `added`.

    `group` is a path below the container's cgroup, "" for the cgroup itself, None for any. With
    `frozen`, the cgroup is frozen, and the process gets as long as it needs: thawing may come at
    any time.
    """
    fd_set = FdSet()
    process = inherit_from_init(process, container.spec.process or NO_PROCESS)
    try:
        plan = _plan(container, added, process, fd_set)
        added.request_handlers = {b"listener": partial(container.send_listener, added)}
        _fork(container, added, process, plan, fd_set, group)
    except OSError as error:
        raise StepFailed("fork", str(error), error.errno or 0) from error
    finally:
        fd_set.close()
    await added.wait_created(None if frozen else 0.0)
    await added.start(hooks_timeout=None if frozen else 0.0)


def _plan(container: "Container", added: ContainerProcess, process: Process, fd_set: FdSet) -> ChildPlan:
    spec, init = container.spec, container.init
    control = fd_set.add(added.control_pair().detach())
    plan = process_plan(process, control, spec.linux.seccomp)
    plan.owner = check_ids(process, *container.mappings())
    plan.affinity = process.cpu_affinity[1] if process.cpu_affinity else ()
    plan.personality = spec.linux.personality
    plan.memory_policy = memory_policy(spec)
    kinds = 0
    for kind in spec.linux.namespaces:
        kinds |= p.NAMESPACE_FLAGS[kind]
    plan.join = [(init.pidfd, kinds & ~(p.CLONE_NEWPID | p.CLONE_NEWTIME))]
    if kinds & p.CLONE_NEWTIME:
        # The first process enters its time namespace only when it executes its program, so the
        # pidfd does not lead there yet. Join it before a user namespace, which may not own this
        # one.
        plan.join.insert(0, (fd_set.add(procfs.open_link(f"{init.pid}/ns/time_for_children")), p.CLONE_NEWTIME))
    plan.becomes_root = bool(kinds & p.CLONE_NEWUSER)
    return plan


def _fork(container: "Container", added: ContainerProcess, process: Process, plan: ChildPlan, fd_set: FdSet, group: str | None) -> None:
    assert container.cgroup is not None
    named = fd_set.add(_group_below(container.cgroup.fd, group)) if group else container.cgroup.fd
    init = container.init
    inherited = [*fd_set.fds, init.pidfd]
    initial = process.cpu_affinity[0] if process.cpu_affinity else ()
    entered = [(init.pidfd, p.CLONE_NEWPID)] if "pid" in container.spec.linux.namespaces else []
    try:
        with TemporaryNamespaces(entered):
            added.fork(plan, child.EXEC_STEPS, 0, named, inherited, initial)
    except OSError as error:
        if error.errno != errno.EBUSY or group is not None:
            raise
        with TemporaryNamespaces(entered):
            leaf = container.cgroup.group_of(init.pid)
            try:
                added.fork(plan, child.EXEC_STEPS, 0, leaf, inherited, initial)
            finally:
                os.close(leaf)


def _group_below(group: int, path: str) -> int:
    """Return a descriptor of an existing cgroup below `group`. Raises Refused."""
    try:
        return openat2(group, path, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise Refused("cgroup", f"{path[:64]!r} is no group below the container's: {error.strerror}") from error
