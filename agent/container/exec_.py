"""One more process in a container (`exec`): the parent's half. It gets what the first process has, and never more."""

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from agent.container.fd_set import Opened
from agent.container.init import child
from agent.container.init.plan import ChildPlan
from agent.container.init.prepare import check_ids, memory_policy, process_plan, within
from agent.container.namespaces import Borrowed
from agent.container.process import ContainerProcess
from agent.container.spec.process import NO_PROCESS, Process
from agent.errors import StepFailed
from agent.linux import process as p
from agent.linux import procfs

if TYPE_CHECKING:
    from agent.container.container import Container


async def join(container: "Container", added: ContainerProcess, process: Process) -> None:
    """Contain and run a process. Raises Refused, StepFailed; the caller then ends `added`."""
    opened = Opened()
    process = within(process, container.spec.process or NO_PROCESS)
    try:
        plan = _plan(container, added, process, opened)

        added.questions = {b"listener": partial(container.send_listener, added)}
        _fork(container, added, process, plan, opened)
    except OSError as error:
        raise StepFailed("fork", str(error), error.errno or 0) from error
    finally:
        opened.close()
    await added.created()
    await added.start()


def _plan(container: "Container", added: ContainerProcess, process: Process, opened: Opened) -> ChildPlan:
    spec, init = container.spec, container.init
    control = opened.add(added.control_pair().detach())
    plan = process_plan(process, control, spec.linux.seccomp)
    plan.owner = check_ids(process, *container.mappings())
    plan.affinity = process.cpu_affinity[1] if process.cpu_affinity else ()
    plan.personality = spec.linux.personality
    plan.memory_policy = memory_policy(spec)
    plan.fail_at = container.host.fail_at
    kinds = 0
    for kind in spec.linux.namespaces:
        kinds |= p.NAMESPACE_FLAGS[kind]
    plan.join = [(init.pidfd, kinds & ~(p.CLONE_NEWPID | p.CLONE_NEWTIME))]
    if kinds & p.CLONE_NEWTIME:
        # The first process enters its time namespace with its program. Before a user namespace, which may not own this one.
        plan.join.insert(0, (opened.add(procfs.open_link(f"{init.pid}/ns/time_for_children")), p.CLONE_NEWTIME))
    plan.becomes_root = bool(kinds & p.CLONE_NEWUSER)
    return plan


def _fork(container: "Container", added: ContainerProcess, process: Process, plan: ChildPlan, opened: Opened) -> None:
    assert container.cgroup is not None
    init = container.init
    inherited = [*opened.fds, init.pidfd]
    initial = process.cpu_affinity[0] if process.cpu_affinity else ()
    borrowed = [(init.pidfd, p.CLONE_NEWPID)] if "pid" in container.spec.linux.namespaces else []
    try:
        with Borrowed(borrowed):
            added.fork(plan, child.EXEC_STEPS, 0, container.cgroup.fd, inherited, initial)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # The container has made groups below its own and enabled controllers: processes live in the leaves only. Follow the first.
        with Borrowed(borrowed):
            leaf = container.cgroup.group_of(init.pid)
            try:
                added.fork(plan, child.EXEC_STEPS, 0, leaf, inherited, initial)
            finally:
                os.close(leaf)
