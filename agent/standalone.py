"""The agent as an ordinary process of root's: namespaces of its own, so that it changes nothing of the machine it runs on.

The socket is bound before, in the outer namespaces, where its clients are.
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
from agent.linux.sealed import copy, is_sealed
from agent.network.loopback import loopback_up

PR_SET_PDEATHSIG = 1
_NOSUID_NODEV = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV

_group: Path | None = None
"""Where containers' groups go; named by the outer process's pid, which removes what a killed inner one leaves."""


def seal_program() -> None:
    """Go on as a sealed copy of the program that runs the agent: the machine's own is then not what a container reaches by /proc/PID/exe.

    In a guest the program is on a read-only image; here root inside a container could write to it (CVE-2019-5736). A frozen program stays
    as it is: its loader must find its own file.
    """
    if not is_sealed() and not getattr(sys, "frozen", False):
        os.execve(copy(), sys.orig_argv, os.environ)


def isolate() -> None:
    """Go on as PID 1 of new pid, mount, network, uts and ipc namespaces; the caller's process waits outside and exits with it.

    Returns in the inner process only. SIGTERM to the outer one ends the inner one, and with it every container.
    """
    global _group
    _group = _make_group()
    p.unshare(p.CLONE_NEWNS | p.CLONE_NEWNET | p.CLONE_NEWUTS | p.CLONE_NEWIPC | p.CLONE_NEWPID)
    inner = os.fork()
    if inner:
        _wait(inner)
    ctypes.PyDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    m.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=m.MS_PRIVATE)
    _mount(b"proc", (), "/proc", _NOSUID_NODEV | m.MOUNT_ATTR_NOEXEC)
    _mount(b"tmpfs", ((b"mode", b"755"),), "/run", _NOSUID_NODEV)
    loopback_up()


def cgroup_root() -> Path:
    """For the containers' groups. Raises OSError where there is none."""
    if _group is None:
        raise OSError("no cgroup2 mount, or not root")
    return _group


def _mount(filesystem: bytes, options: "tuple[tuple[bytes, bytes | None], ...]", target: str, attributes: int) -> None:
    fd = m.new_mount(filesystem, options, attributes)
    try:
        m.move_mount_path(fd, target)
    finally:
        os.close(fd)


def _wait(inner: int) -> None:
    """The outer process: passes SIGTERM on as the end of the inner one. Never returns."""

    def end(signum: int, frame: object) -> None:
        os.kill(inner, signal.SIGKILL)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, end)
    _, status = os.waitpid(inner, 0)
    if _group is not None:
        _remove_tree(_group)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _make_group() -> Path | None:
    """A group of our own with every controller that can be had; None where cgroup2 is not mounted."""
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        mounts = [line.split(" ")[1] for line in file if line.split(" ")[2] == "cgroup2"]
    if not mounts:
        return None
    group = Path(mounts[0]) / f"innkeeper-agent-{os.getpid()}"
    group.mkdir()
    for controller in (group / "cgroup.controllers").read_text(encoding="ascii").split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
        except OSError:
            continue  # bound elsewhere
    return group


def _remove_tree(root: Path) -> None:
    """Groups below first; one whose last process has just been killed is busy for some milliseconds."""
    for below in sorted((Path(folder) for folder, _, _ in os.walk(root)), key=lambda path: -len(path.parts)):
        for _ in range(100):
            try:
                below.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)
