"""One more process in a container (`exec`): the parent's half.

The process gets what its caller asks for, and the rest as the container's first process has it. It
is created in the container's cgroup, or in one below it that the caller chooses. A container may
have made cgroups below its own and enabled controllers for them. Its own cgroup then takes no
process (cgroups(7), "no internal processes"), and the new process joins the first one's cgroup,
unless the caller chose one.
"""

import errno
import os
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


class ExecBuilder:
    """Creates one more process of a container and runs its program.

    `cgroup` is a path below the container's cgroup, "" for the cgroup itself, None for any. With
    `frozen`, the cgroup is frozen, and the process gets as long as it needs: thawing may come at
    any time.
    """

    def __init__(self, container: "Container", added: ContainerProcess, process: Process, cgroup: str | None, frozen: bool) -> None:
        self._container = container
        self._added = added
        self._process = inherit_from_init(process, container.spec.process or NO_PROCESS)
        self._cgroup = cgroup
        self._hooks_timeout = None if frozen else 0.0
        self._fd_set = FdSet()

    async def run(self) -> None:
        """Contain and run the process. Raises Refused, StepFailed: the caller then ends it."""
        try:
            self._fork(self._plan())
        except OSError as error:
            raise StepFailed("fork", str(error), error.errno or 0) from error
        finally:
            self._fd_set.close()
        await self._added.wait_created(self._hooks_timeout)
        await self._added.start(hooks_timeout=self._hooks_timeout)

    def _plan(self) -> ChildPlan:
        spec, init, process = self._container.spec, self._container.init, self._process
        plan = process_plan(process, self._fd_set.add(self._added.control_pair()), spec.linux.seccomp)
        plan.steps = child.EXEC_STEPS
        plan.owner = check_ids(process, *self._container.mappings())
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
            time = self._fd_set.add(procfs.open_link(f"{init.pid}/ns/time_for_children"))
            plan.join.insert(0, (time, p.CLONE_NEWTIME))
        plan.becomes_root = bool(kinds & p.CLONE_NEWUSER)
        return plan

    def _fork(self, plan: ChildPlan) -> None:
        container, init = self._container, self._container.init
        assert container.cgroup is not None
        plan.cgroup = container.cgroup.fd
        if self._cgroup:
            plan.cgroup = self._fd_set.add(_open_cgroup_below(plan.cgroup, self._cgroup))
        fds = [*self._fd_set.fds, init.pidfd]
        affinity = self._process.cpu_affinity[0] if self._process.cpu_affinity else ()
        pid_namespace = [(init.pidfd, p.CLONE_NEWPID)] if "pid" in container.spec.linux.namespaces else []
        with TemporaryNamespaces(pid_namespace), _Affinity(affinity):
            try:
                self._added.fork(plan, fds)
            except OSError as error:
                if error.errno != errno.EBUSY or self._cgroup is not None:
                    raise
                plan.cgroup = self._fd_set.add(container.cgroup.open_cgroup_of(init.pid))
                self._added.fork(plan, fds)


def _open_cgroup_below(cgroup: int, path: str) -> int:
    """Return a descriptor of an existing cgroup below `cgroup`. Raises Refused."""
    try:
        return openat2(cgroup, path, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise Refused("cgroup", f"{path[:64]!r} is no group below the container's: {error.strerror}") from error


class _Affinity:
    """Context manager: run on these processors, if any are given. Raises Refused.

    A child that is forked meanwhile inherits them, and so starts there before its cgroup applies.
    """

    def __init__(self, cpus: tuple[int, ...]) -> None:
        self._cpus = cpus
        self._own: set[int] = set()

    def __enter__(self) -> None:
        if not self._cpus:
            return
        own = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, self._cpus)
        except OSError as error:
            raise Refused("process.execCPUAffinity.initial", f"none of these processors is here: {error.strerror}") from error
        self._own = own

    def __exit__(self, *error: object) -> None:
        if self._own:
            os.sched_setaffinity(0, self._own)
