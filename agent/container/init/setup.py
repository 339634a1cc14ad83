"""The child's steps that set up its environment: namespaces, mounts, devices, root, sysctls.

Also the host name, the session keyring and the masked paths. Nothing is imported here after the
fork.
"""

import os

from agent.container.hooks import run_in_child
from agent.container.init.plan import ChildPlan
from agent.linux import lsm, procfs
from agent.linux import mount as m
from agent.linux import process as p
from agent.linux.keyring import new_session_keyring
from agent.linux.loopback import loopback_up
from agent.linux.openat2 import make_directory_in_root


def join_namespaces(plan: ChildPlan) -> None:
    for fd, kinds in plan.join:
        p.setns(fd, kinds)
    if plan.unshare:
        p.unshare(plan.unshare)
    if plan.time_offsets:
        _offset_clocks(plan)
    if plan.becomes_root:
        p.setresgid(0)
        p.setresuid(0)


def _offset_clocks(plan: ChildPlan) -> None:
    """Write the clock offsets of the new time namespace.

    They apply to processes that are created in it, and to this process from exec on.
    """
    if not plan.new_root:
        procfs.write("self/timens_offsets", plan.time_offsets)
        return
    # This process is undumpable, so in a user namespace its files in /proc are not its own
    # (proc(5)). The parent writes instead.
    os.write(plan.control, b"clocks")
    if os.read(plan.control, 16) != b"offset":
        os._exit(127)


def new_keyring(plan: ChildPlan) -> None:
    if plan.key_label:
        procfs.write(lsm.SELINUX_KEY_ATTRIBUTE, plan.key_label)
    new_session_keyring()


def bring_up_loopback(plan: ChildPlan) -> None:
    if plan.loopback:
        loopback_up()


def make_mounts(plan: ChildPlan) -> None:
    for operation in plan.mounts:
        operation.execute(plan.root)


def make_devices(plan: ChildPlan) -> None:
    for operation in plan.devices:
        operation.execute(plan.root)


def await_runtime(plan: ChildPlan) -> None:
    os.write(plan.control, b"mounted")
    if os.read(plan.control, 16) != b"hooked":
        os._exit(127)


def run_container_hooks(plan: ChildPlan) -> None:
    if plan.container_hooks:
        run_in_child(plan.container_hooks, plan.state, plan.root, _as_runtime)


def _as_runtime() -> None:
    os.umask(0o022)


def enter_root(plan: ChildPlan) -> None:
    os.fchdir(plan.root)
    # Both arguments name the new root. The old root is then stacked on it (pivot_root(2), NOTES),
    # and no directory of the container has to hold it.
    m.pivot_root(b".", b".")
    # The old root covers the new one now. It has been a slave or private since the first mount, so
    # the unmount does not propagate.
    m.umount2(b".", m.MNT_DETACH)
    os.chdir(b"/")


def name_host(plan: ChildPlan) -> None:
    if plan.hostname:
        p.set_host_name(plan.hostname)
    if plan.domainname:
        p.set_domain_name(plan.domainname)


def set_sysctls(plan: ChildPlan) -> None:
    for path, value in plan.sysctl:
        procfs.write(f"sys/{path}", value)


def make_cwd(plan: ChildPlan) -> None:
    os.close(make_directory_in_root(plan.root, plan.process.cwd))


def restrict_paths(plan: ChildPlan) -> None:
    for operation in plan.restrictions:
        operation.execute(plan.root)
