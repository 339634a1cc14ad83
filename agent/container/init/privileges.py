"""The last steps of the child: limits, ids, capabilities and the filter, in the order in which each still has the right it needs.

Nothing is imported here after the fork.
"""

import os

from agent.container.init.plan import ChildPlan
from agent.linux import process as p
from agent.linux import procfs
from agent.linux.seccomp import (
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_FILTER_FLAG_TSYNC,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    Filter,
)


def label_program(plan: ChildPlan) -> None:
    for path, label in plan.labels:
        procfs.write(path, label)


def drop_privileges(plan: ChildPlan) -> None:
    """Rlimits first: raising one needs a capability. All arguments are prepared: a tiny RLIMIT_AS forbids to allocate."""
    for resource, value in plan.rlimits:
        p.prlimit(resource, value)
    if plan.inheritable_first is not None:
        plan.inheritable_first.install()
    for capability in plan.drop_bounding:
        p.drop_bounding(capability)
    p.set_keepcaps(True)
    _set_groups(plan.groups)
    p.setresgid(plan.gid)
    p.setresuid(plan.uid)
    p.set_keepcaps(False)
    p.set_dumpable(False)


def _set_groups(groups: tuple[int, ...]) -> None:
    """Exactly these, also when there are none; only a user namespace that denies the call altogether may keep what it has."""
    try:
        p.setgroups(groups)
    except PermissionError:
        if groups or procfs.read("self/setgroups").strip() != b"deny":
            raise


def set_capabilities(plan: ChildPlan) -> None:
    """All sets as asked, except that CAP_SYS_ADMIN stays until a filter that needs it is in."""
    plan.interim.install()
    p.clear_ambient()
    if plan.no_new_privs:
        p.set_no_new_privs()
    os.umask(plan.umask)
    p.unblock_signals()


def install_filter(plan: ChildPlan) -> None:
    """From here on the profile binds this process too: only prepared calls."""
    if plan.seccomp is not None and not plan.no_new_privs:
        _install(plan, plan.seccomp)
        plan.final.install()
    elif plan.seccomp is not None or plan.interim is not plan.final:
        plan.final.install()
    for capability in plan.ambient:
        p.raise_ambient(capability)
    if plan.seccomp is not None and plan.no_new_privs:
        _install(plan, plan.seccomp)


def _install(plan: ChildPlan, program: Filter) -> None:
    """With a listener, the parent gets hold of it before any call can wait for its answer."""
    if not plan.notifies:
        program.install(program.flags & ~SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        return
    fd = program.install(program.flags & ~SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER)
    os.write(plan.control, b"listener %d" % fd)
    if os.read(plan.control, 16) != b"sent":
        os._exit(127)
