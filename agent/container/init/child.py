"""What a container's process does between clone3(2) and execve(2): the containment, in order.

`INIT_STEPS` and `EXEC_STEPS` are the tables of contents. Each entry is a step's name, its function
and the reason why it stands at that place. The order is the design: a step can rely on what the
ones before it have made, and a privilege is dropped only after the last step that needs it.

Everything that could be prepared was prepared by the parent (agent.container.init.prepare). Nothing
is imported here after the fork, and the child ends in exec or in os._exit: it is a copy of the
agent, and must not run the agent's exception handlers or clean-up. An error travels back as one
record on the control socket: step, errno, text, path.
"""

import array
import errno
import gc
import os
import socket

from agent.container.hooks import run_in_child
from agent.container.init import child_error
from agent.container.init.plan import ChildPlan, Step
from agent.container.init.privileges import drop_privileges, install_filter, label_program, set_capabilities
from agent.container.init.program import (
    chown_tty,
    enter_cwd,
    enter_cwd_as_user,
    find_program,
    not_executable,
    open_terminal,
    schedule,
)
from agent.container.init.setup import (
    await_runtime,
    bring_up_loopback,
    enter_root,
    join_namespaces,
    make_cwd,
    make_devices,
    make_mounts,
    name_host,
    new_keyring,
    restrict_paths,
    run_container_hooks,
    set_sysctls,
)
from agent.container.step_times import mark
from agent.linux import process as p


def run(plan: ChildPlan) -> None:
    """Contain this process and execute the program. Never returns."""
    name = "begin"
    try:
        for name, action, _why in plan.steps:
            action(plan)
            mark(name)
        name = "execute program"
        if not plan.process.args:
            raise OSError(errno.EINVAL, "the specification has no process")
        assert plan.envp is not None
        number = p.execve(plan.program, plan.argv, plan.envp)
        why = f": {not_executable(plan.header)}" if number == errno.ENOEXEC else ""
        raise OSError(number, os.strerror(number) + why, os.fsdecode(plan.program))
    # Outermost frame of the process: every exception must reach the parent, and none may run the
    # parent's code.
    except BaseException as error:  # noqa: BLE001
        os.write(plan.control, child_error.encode(name, error))
    finally:
        os._exit(127)


def run_intermediate(plan: ChildPlan, namespaces: list[tuple[int, int]]) -> None:
    """Join namespaces, then fork the process that is to be contained, as a sibling. Never returns.

    The user namespace is joined last. An existing user namespace owns the new namespaces of a child
    only if they are made from inside it.
    """
    name = "join namespaces"
    try:
        p.set_dumpable(False)
        for fd, kinds in namespaces:
            p.setns(fd, kinds)
        name = "fork"
        pid, pidfd = p.clone3(plan.clone_flags | p.CLONE_PARENT, plan.cgroup)
        if pid == 0:
            run(plan)
        # A copy, because leaving the `with` closes the socket.
        with socket.socket(fileno=os.dup(plan.control)) as control:
            control.sendmsg([b"forked %d" % pid], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))])
    # Outermost frame of a process, as in `run`.
    except BaseException as error:  # noqa: BLE001
        os.write(plan.control, child_error.encode(name, error))
    finally:
        os._exit(0)


def begin(plan: ChildPlan) -> None:
    gc.disable()
    p.close_all_but(plan.keep)
    p.reset_ignored_signals()
    os.setsid()
    p.set_dumpable(False)
    os.umask(0)


def await_parent(plan: ChildPlan) -> None:
    if plan.waits_for_parent and os.read(plan.control, 16) != b"go":
        os._exit(127)
    if plan.new_root:
        p.setresgid(0)
        p.setresuid(0)
        # A change of ids resets this attribute to fs.suid_dumpable (prctl(2), PR_SET_DUMPABLE).
        p.set_dumpable(False)


def close_descriptors(plan: ChildPlan) -> None:
    p.close_range_cloexec(3)
    for fd in plan.preserved:
        os.set_inheritable(fd, True)


def await_start(plan: ChildPlan) -> None:
    os.write(plan.control, b"created")
    if plan.start_socket >= 0:
        if os.read(plan.control, 16) != b"recorded":
            os._exit(127)  # the creator has ended, and no other process knows this one
        _await_connection(plan)
    elif os.read(plan.control, 16) != b"start":
        os._exit(127)  # the agent has ended, or has given this container up


def _await_connection(plan: ChildPlan) -> None:
    """Wait for a connection that starts the program. It replaces the control socket.

    The start comes from another process than the creator, which may have ended long ago. A
    connection that closes without a word has only checked whether this process listens.
    """
    with socket.socket(fileno=plan.start_socket) as listener:
        while True:
            connection, _ = listener.accept()
            if connection.recv(16) == b"start":
                os.dup2(connection.fileno(), plan.control, inheritable=False)
                return
            connection.close()


COMMON_END: tuple[Step, ...] = (
    ("label program", label_program, "by the agent's own procfs; the label takes effect at exec, and its policy may forbid the write"),
    ("drop privileges", drop_privileges, "limits, bounding set and ids in the order their capabilities last"),
    ("enter working directory as user", enter_cwd_as_user, "where only the user may enter"),
    ("set capabilities", set_capabilities, "exact sets; no_new_privs before an unprivileged filter"),
    ("install seccomp filter", install_filter, "last: fewest calls under the filter"),
)


def run_start_hooks(plan: ChildPlan) -> None:
    if plan.start_hooks:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        run_in_child(plan.start_hooks, plan.state, root, lambda: _contain_hook(plan))
        os.close(root)
        os.write(plan.control, b"hooked")


def _contain_hook(plan: ChildPlan) -> None:
    """Contain a startContainer hook as the program will be.

    The hook's file is in the container, so it gets no more privileges than the program. Only the
    program's filter has a listener.
    """
    plan.notifies = False
    for _name, action, _why in COMMON_END:
        action(plan)


INIT_STEPS: tuple[Step, ...] = (
    ("begin", begin, "no descriptor, handler or tracer of the agent's from the first moment on"),
    ("await parent", await_parent, "ids are mapped and interfaces are here; until then every capability check and owner is wrong"),
    ("join namespaces", join_namespaces, "after the mount namespace is ours; a cgroup namespace roots where the process is"),
    ("make session keyring", new_keyring, "a shared one leaks keys"),
    ("bring up loopback", bring_up_loopback, "needs CAP_NET_ADMIN"),
    ("place mounts", make_mounts, "each built detached, with its attributes, then placed by descriptor"),
    ("make devices", make_devices, "/dev is mounted, the root still writable"),
    (
        "await the runtime",
        await_runtime,
        "device rules bind from here on; prestart and createRuntime hooks: the old root is still in reach",
    ),
    ("run createContainer hooks", run_container_hooks, "in the container's namespaces, found in the old root"),
    ("enter root", enter_root, "the old root is gone after this"),
    ("open terminal", open_terminal, "of the container's own devpts"),
    ("own terminal", chown_tty, "the program may reopen it as its user; pipes were given to it by the parent"),
    ("name host", name_host, "the uts namespace is the container's"),
    ("set sysctls", set_sysctls, "before /proc/sys turns read-only"),
    ("make working directory", make_cwd, "before the root turns read-only"),
    ("restrict paths", restrict_paths, "masks end up on top; the root stays writable for their mount points"),
    ("set scheduling", schedule, "needs CAP_SYS_NICE and CAP_SYS_RESOURCE"),
    ("enter working directory", enter_cwd, "verified, before a filter may deny getcwd; a program may be named relative to it"),
    ("find program", find_program, "a missing program fails create"),
    ("close descriptors", close_descriptors, "whatever is still open ends at exec"),
    ("await start", await_start, "created"),
    ("run startContainer hooks", run_start_hooks, "in the container, contained as the program will be"),
    *COMMON_END,
)

EXEC_STEPS: tuple[Step, ...] = (
    ("begin", begin, "undumpable before it is anywhere a container can see it"),
    ("set scheduling", schedule, "through the agent's own procfs, before the container's mount namespace"),
    ("join namespaces", join_namespaces, "all of the container's, by the pidfd of its first process"),
    ("make session keyring", new_keyring, "a shared one leaks keys"),
    ("open terminal", open_terminal, "of the container's own devpts"),
    ("own terminal", chown_tty, "the program may reopen it as its user; pipes were given to it by the parent"),
    ("enter working directory", enter_cwd, "verified, before a filter may deny getcwd; a program may be named relative to it"),
    ("find program", find_program, "a missing program fails exec"),
    ("close descriptors", close_descriptors, "whatever is still open ends at exec"),
    ("await start", await_start, "created"),
    *COMMON_END,
)
