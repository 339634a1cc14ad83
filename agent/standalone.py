"""The agent as an ordinary root process, in namespaces of its own.

The namespaces keep it from changing the host that it runs on. Its socket is bound before, in the
outer namespaces, where its clients are.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from agent.linux import mount as m
from agent.linux import process as p
from agent.linux.libc import AT_FDCWD, AT_RECURSIVE
from agent.linux.loopback import loopback_up
from agent.linux.mount_table import mount_table
from agent.linux.sealed import copy, is_sealed

PR_SET_PDEATHSIG = 1
_NOSUID_NODEV = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV

_cgroup: Path | None = None
"""The cgroup for containers.

It is named after the pid of the outer process, which removes what a killed inner process leaves.
"""


def seal_program() -> None:
    """Execute a sealed in-memory copy of the program that runs the agent, unless this is one.

    Root in a container reaches the agent's program by /proc/PID/exe and could overwrite it
    (CVE-2019-5736). In a guest the program is on a read-only image. Here it would be the host's
    own. A frozen program is left as it is, because its loader must find its own file. Raises
    OSError.
    """
    if not is_sealed() and not getattr(sys, "frozen", False):
        os.execve(copy(), sys.orig_argv, os.environ)


def isolate() -> None:
    """Continue as PID 1 of new pid, mount, network, uts and ipc namespaces.

    The calling process waits outside and exits with the status of the inner one, so this returns
    in the inner process only. SIGTERM to the outer process kills the inner one, and with that
    every container, because the kernel kills all processes of a pid namespace whose PID 1 ends. If
    the outer process is killed, PR_SET_PDEATHSIG kills the inner one. Raises OSError.
    """
    global _cgroup
    _cgroup = _make_cgroup()
    p.unshare(p.CLONE_NEWNS | p.CLONE_NEWNET | p.CLONE_NEWUTS | p.CLONE_NEWIPC | p.CLONE_NEWPID)
    inner = os.fork()
    if inner:
        _wait(inner)
    ctypes.PyDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    m.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=m.MS_PRIVATE)
    m.mount_at("/proc", b"proc", attributes=_NOSUID_NODEV | m.MOUNT_ATTR_NOEXEC)
    m.mount_at("/run", b"tmpfs", ((b"mode", b"755"),), _NOSUID_NODEV)
    loopback_up()


def cgroup_root() -> Path:
    """Return the cgroup for containers. Raises OSError if there is none."""
    if _cgroup is None:
        raise OSError("no cgroup2 mount, or not root")
    return _cgroup


def _wait(inner: int) -> None:
    """Wait for the inner process, remove its cgroups, and exit with its status. Never returns.

    SIGTERM, SIGINT and SIGHUP kill the inner process.
    """

    def end(signum: int, frame: object) -> None:
        os.kill(inner, signal.SIGKILL)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, end)
    _, status = os.waitpid(inner, 0)
    if _cgroup is not None:
        _remove_tree(_cgroup)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _make_cgroup() -> Path | None:
    """Make a cgroup with every available controller, or return None without a cgroup2 mount.

    Raises OSError.
    """
    mounts = [entry.mountpoint for entry in mount_table() if entry.filesystem == "cgroup2"]
    if not mounts:
        return None
    cgroup = Path(mounts[0]) / f"innkeeper-agent-{os.getpid()}"
    cgroup.mkdir()
    for controller in (cgroup / "cgroup.controllers").read_text(encoding="ascii").split():
        try:
            (cgroup / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
        except OSError:
            continue  # it is in use elsewhere
    return cgroup


def _remove_tree(root: Path) -> None:
    """Remove a cgroup and its descendants, the deepest first.

    A cgroup stays busy for some milliseconds after its last process was killed, so it is tried
    again.
    """
    for below in sorted((Path(folder) for folder, _, _ in os.walk(root)), key=lambda path: -len(path.parts)):
        for _ in range(100):
            try:
                below.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)
