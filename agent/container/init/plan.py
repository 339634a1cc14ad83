"""Everything that the child needs, prepared before the fork. The child makes no decision.

It consists of descriptors, bytes, masks and operations.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.container.hooks import PreparedHook
from agent.container.rootfs.operation import Operation
from agent.container.spec.process import Process
from agent.linux.capability import Sets
from agent.linux.numa import NodeMask
from agent.linux.seccomp import Filter

Step = tuple[str, Callable[["ChildPlan"], None], str]
"""A step of the child: its name, its function, and why it stands where it does."""


@dataclass(slots=True)
class ChildPlan:
    """The input of agent.container.init.child. Mutable: the child notes in it what it finds."""

    control: int
    process: Process
    env: list[bytes]
    interim: Sets
    final: Sets
    argv: "ctypes.Array[ctypes.c_char_p]"
    steps: tuple[Step, ...] = ()
    clone_flags: int = 0
    """Namespaces to create with the child."""
    cgroup: int | None = None
    """The descriptor of the cgroup to create the child in. None: the parent's."""
    keep: list[int] = field(default_factory=list)
    stdio: tuple[int, ...] = ()
    owner: int = 0
    """The uid of the program's user as the agent sees it."""
    root: int = -1
    waits_for_parent: bool = False
    """The child must wait until the parent has mapped ids or moved interfaces."""
    new_root: bool = False
    """The process is created in a user namespace, in which it must first become root."""
    start_socket: int = -1
    """A listening socket to await the start on, if another process than the parent starts it."""
    preserved: tuple[int, ...] = ()
    """Descriptors that stay open in the program."""
    join: list[tuple[int, int]] = field(default_factory=list)
    unshare: int = 0
    time_offsets: bytes = b""
    becomes_root: bool = False
    loopback: bool = False
    mounts: list[Operation] = field(default_factory=list)
    devices: list[Operation] = field(default_factory=list)
    restrictions: list[Operation] = field(default_factory=list)
    console: bool = False
    """The terminal is also the container's /dev/console."""
    hostname: bytes = b""
    domainname: bytes = b""
    sysctl: list[tuple[str, bytes]] = field(default_factory=list)
    personality: int | None = None
    affinity: tuple[int, ...] = ()
    memory_policy: tuple[int, NodeMask | None] | None = None
    home_missing: bool = False
    program: bytes = b""
    header: bytes = b""
    """The beginning of the program's file."""
    envp: "ctypes.Array[ctypes.c_char_p] | None" = None
    cwd_later: bool = False
    rlimits: list[tuple[int, bytes]] = field(default_factory=list)
    inheritable_first: Sets | None = None
    drop_bounding: list[int] = field(default_factory=list)
    ambient: list[int] = field(default_factory=list)
    labels: list[tuple[str, bytes]] = field(default_factory=list)
    """What to write below /proc to set the program's AppArmor or SELinux label."""
    key_label: bytes = b""
    seccomp: Filter | None = None
    notifies: bool = False
    """The parent takes the filter's listener."""
    has_hooks: bool = False
    """There are hooks before the program's start.

    Once they have begun, the poststop hooks must run in the end.
    """
    container_hooks: tuple[PreparedHook, ...] = ()
    start_hooks: tuple[PreparedHook, ...] = ()
    state: tuple[bytes, bytes] = (b"", b"")
    """The container's state for hooks, before and after the pid."""
    warnings: list[str] = field(default_factory=list)
