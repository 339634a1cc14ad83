"""From what the user asked for to a plan that whoever owns the container (this process or a keeper) can carry out."""

import math
import os
from dataclasses import dataclass

from innkeeper import guest as build
from innkeeper.engine import terminal
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts, Variant
from innkeeper.image import Image, RunOptions, resolve
from innkeeper.vm import registry

DEFAULT_MEMORY_MIB = 2048
"""Of the machine; the host gives what the guest touches, not all of it."""
OVERHEAD_MIB = 256
"""What the guest itself may use beside a container that has reached its --memory."""


@dataclass(frozen=True)
class Wish:
    """What is asked of the machine and of the command line, beside the container. Sizes in bytes, times in seconds."""

    reference: str
    name: str = ""
    detached: bool = False
    remove: bool = False
    network: bool = True
    scratch: int = 8 << 30
    accel: str | None = None
    vm_memory: int | None = None
    timeout: float = 120.0
    guest: Variant = "release"


@dataclass(frozen=True)
class Plan:
    """A wish with everything it needs at hand: the guest is built, the image is in the cache."""

    wish: Wish
    options: RunOptions
    image: Image
    artifacts: Artifacts

    @property
    def memory_mib(self) -> int:
        """Memory of the machine."""
        if self.wish.vm_memory is not None:
            return self.wish.vm_memory >> 20
        if self.options.memory is not None:
            return max(512, (self.options.memory >> 20) + OVERHEAD_MIB)
        return DEFAULT_MEMORY_MIB

    @property
    def cpus(self) -> int:
        """Processors of the machine: as many as --cpus may use, else two where the host has them."""
        host = os.cpu_count() or 1
        return min(host, math.ceil(self.options.cpus)) if self.options.cpus else min(host, 2)


def make(wish: Wish, options: RunOptions) -> Plan:
    """Build the guest and fetch the image where the caches lack them. Raises InnkeeperError."""
    registry.sweep()
    if wish.name:
        _check_name(wish.name)
    if options.ports and not wish.network:
        raise InnkeeperError("-p needs a network", hint="leave out --network none")
    if options.tty:
        options.terminal_size = options.terminal_size or terminal.size()
    image = resolve(wish.reference)
    artifacts = build.build(None, wish.guest)
    return Plan(wish, options, image, artifacts)


def _check_name(name: str) -> None:
    """Complain about a name that is taken before anything slow happens; `registry.create` has the last word."""
    for record in registry.list_machines():
        if record.name == name:
            force = "-f " if record.alive else ""
            raise InnkeeperError(f"the name {name} is taken by container {record.id}", hint=f"remove it: rm {force}{name}")


def network(text: str) -> bool:
    """`--network`: whether the machine has a network card."""
    if text not in ("user", "none"):
        raise InnkeeperError(f"--network {text}: not known", hint="user or none")
    return text == "user"


def accelerator(text: str) -> str | None:
    """`--accel`: None lets the machine choose."""
    if text not in ("auto", "kvm", "tcg"):
        raise InnkeeperError(f"--accel {text}: not known", hint="auto, kvm or tcg")
    return None if text == "auto" else text


def guest_variant(chosen: Variant, debug: bool) -> Variant:
    """`--guest-variant` and `--debug-guest`, which is short for one of its values."""
    if debug and chosen not in ("release", "debug"):
        raise InnkeeperError(f"--debug-guest and --guest-variant {chosen}: a guest has one variant")
    return "debug" if debug else chosen


def mandatory_access_control(guest: Variant) -> str:
    """The module that a guest of this variant runs."""
    return "selinux" if guest == "selinux" else "apparmor"


def boot_words(guest: Variant) -> tuple[str, ...]:
    """What the kernel of this variant is told besides. AppArmor is its default (kernel-config/security.conf)."""
    return ("lsm=landlock,selinux",) if guest == "selinux" else ()
