"""What a test cannot do without, and what happens on a host that lacks it.

    @needs("root", "runc")      # on a test, a class, or `pytestmark = needs(...)` for a module

A part that is missing skips the test, and the summary at the end names it with its reason; with CI=true it fails instead, so that
nothing is left out unseen. NOT_IN_CI are the exceptions to that.
Parts are: the names in PARTS, a program that `innkeeper.programs` knows (installed if that is permitted), `module:NAME`, or
`debian:PACKAGE` (see `tests/debian_package.py`).
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.errors import InnkeeperError


def needs(*parts: str) -> pytest.MarkDecorator:
    """Mark that a test cannot do without `parts`."""
    return pytest.mark.needs(*parts)


def in_ci() -> bool:
    """Whether a missing part is a failure."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


def _user_namespaces() -> str | None:
    pid = os.fork()
    if pid == 0:
        import ctypes

        clone_newuser = 0x10000000
        os._exit(0 if ctypes.CDLL(None).unshare(clone_newuser) == 0 else 1)
    return None if os.waitpid(pid, 0)[1] == 0 else "this host permits no user namespaces"


def _cgroup2() -> str | None:
    if any(line.split()[2] == "cgroup2" for line in Path("/proc/mounts").read_text().splitlines()):
        return None
    return "this host has no cgroup2 mount"


def _tty() -> str | None:
    return None if os.path.exists("/dev/ptmx") else "this host has no /dev/ptmx"


def _loop() -> str | None:
    return None if os.path.exists("/dev/loop-control") else "this host has no loop devices"


def _landlock() -> str | None:
    from agent.linux import landlock

    return None if landlock.abi() else "this host's kernel has no Landlock"


def _x86() -> str | None:
    return None if os.uname().machine == "x86_64" else "the guest is built for x86_64 only"


def _shim() -> str | None:
    from bench.node import why_no_shim

    return why_no_shim()


def _kubernetes() -> str | None:
    from tests.kubernetes.programs import why_missing

    return why_missing()


PARTS: dict[str, Callable[[], str | None]] = {
    "root": _root,
    "user-namespaces": _user_namespaces,
    "cgroup2": _cgroup2,
    "pty": _tty,
    "loop": _loop,
    "landlock": _landlock,
    "x86_64": _x86,
    "shim": _shim,
    "kubernetes": _kubernetes,
}

OF_MARKER = {
    "root": ("root",),
    "vm": ("x86_64", "qemu-system-x86_64", "buildah", "mmdebstrap", "skopeo", "mkfs.erofs"),
    "interop": ("root",),
}
"""What a marker alone already needs."""


NOT_IN_CI = {
    "shim": "it is another project's program, and neither it nor what builds it may be a part of this tree",
    "kubernetes": "the first build takes longer than most parts of a run, and 3 GB: it is made by a run of these tests alone",
}
"""Parts that may be missing with CI=true too, and why. What needs them is then left out by name in the summary."""


@cache
def why_missing(part: str) -> str | None:
    """Why `part` is not to be had on this host, or None if it is."""
    if part in PARTS:
        return PARTS[part]()
    if part.startswith("module:"):
        module = part.removeprefix("module:")
        return None if importlib.util.find_spec(module) else f"{Path(sys.executable).name} has no module {module}"
    try:
        if part.startswith("debian:"):
            from tests.debian_package import unpacked

            unpacked(part.removeprefix("debian:"))
        else:
            programs.require(part)
    except InnkeeperError as error:
        return error.message
    return None
