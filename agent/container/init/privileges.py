"""The child's last steps: limits, ids, capabilities and the filter.

Each stands where the child still has the privilege that it needs. Nothing is imported here after
the fork.
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
    """Set the limits, then drop the bounding set and change the ids.

    The limits are first, because raising one needs a capability. All arguments are prepared: a tiny
    RLIMIT_AS forbids allocations.
    """
    for resource, value in plan.rlimits:
        p.prlimit(resource, value)
    if plan.inheritable_first is not None:
        plan.inheritable_first.install()
    for capability in plan.drop_bounding:
        p.drop_bounding(capability)
    # Otherwise the change from uid 0 to another one would clear the permitted set, which
    # `set_capabilities` needs (capabilities(7)).
    p.set_keepcaps(True)
    _set_groups(plan.process.user.groups)
    p.setresgid(plan.process.user.gid)
    p.setresuid(plan.process.user.uid)
    p.set_keepcaps(False)
    # A change of ids resets this attribute to fs.suid_dumpable (prctl(2), PR_SET_DUMPABLE).
    p.set_dumpable(False)


def _set_groups(groups: tuple[int, ...]) -> None:
    """Set exactly these supplementary groups, also if there are none.

    A user namespace that denies setgroups(2) keeps its groups, but only if no groups are requested.
    """
    try:
        p.setgroups(groups)
    except PermissionError:
        if groups or procfs.read("self/setgroups").strip() != b"deny":
            raise


def set_capabilities(plan: ChildPlan) -> None:
    """Set all sets as requested, but keep CAP_SYS_ADMIN if the filter's installation needs it."""
    plan.interim.install()
    p.clear_ambient()
    if plan.process.no_new_privs:
        p.set_no_new_privs()
    os.umask(plan.process.user.umask)
    p.unblock_signals()


def install_filter(plan: ChildPlan) -> None:
    """Install the filter, and set the final capabilities and the ambient set.

    From here on the profile applies to this process too, so it uses only prepared calls. Without
    no_new_privs, installing a filter needs CAP_SYS_ADMIN (seccomp(2)), so the filter comes before
    the final capabilities. With no_new_privs it comes last.
    """
    if plan.seccomp is not None and not plan.process.no_new_privs:
        _install(plan, plan.seccomp)
        plan.final.install()
    elif plan.seccomp is not None or plan.interim is not plan.final:
        plan.final.install()
    for capability in plan.ambient:
        p.raise_ambient(capability)
    if plan.seccomp is not None and plan.process.no_new_privs:
        _install(plan, plan.seccomp)


def _install(plan: ChildPlan, program: Filter) -> None:
    """Install the filter, and let the parent take its listener if it has one.

    The parent gets the listener before any other call can block on its answer.
    """
    if not plan.notifies:
        program.install(program.flags & ~SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
        return
    fd = program.install(program.flags & ~SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER)
    os.write(plan.control, b"listener %d" % fd)
    if os.read(plan.control, 16) != b"sent":
        os._exit(127)
