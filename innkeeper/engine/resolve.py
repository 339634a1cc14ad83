"""Turn the user's request into a resolved run.

The process that owns the container (this one, or a monitor) can carry it out without further
input.
"""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from innkeeper import guest, progress
from innkeeper.engine import host, terminal
from innkeeper.errors import InnkeeperError
from innkeeper.guest import BootFiles, Variant
from innkeeper.image import Image, RunOptions, resolve
from innkeeper.paths import program_name
from innkeeper.vm import HostPrograms, VmConfig, registry

DEFAULT_MEMORY_MIB = 2048
"""Memory of the VM in MiB. The host allocates only the pages that the guest touches."""
OVERHEAD_MIB = 256
"""MiB for the guest itself, beside a container that has reached its --memory."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The settings of the VM and of the command line, beside those of the container.

    Sizes in bytes, times in seconds.
    """

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
    guest_file: Path | None = None
    kernel: str = "auto"
    start: str = ""


@dataclass(frozen=True)
class ResolvedRun:
    """A request with all its inputs: guest built, image in the cache, host ready."""

    request: RunRequest
    options: RunOptions
    image: Image
    boot_files: BootFiles
    host: HostPrograms


def vm_config(request: RunRequest, options: RunOptions, boot: BootFiles) -> VmConfig:
    """Return the configuration of the VM, without disks, shares and ports.

    These differ between containers.
    """
    return VmConfig(
        kernel=boot.kernel,
        root=boot.rootfs,
        initrd=boot.initrd,
        machine_type=boot.machine_type,
        memory_mib=memory_mib(request, options),
        cpus=cpus(options),
        network=request.network,
        accel=request.accel,
        cmdline=(*boot.parameters, *kernel_parameters(request.guest)),
    )


def memory_mib(request: RunRequest, options: RunOptions) -> int:
    """Return the memory of the VM in MiB."""
    if request.vm_memory is not None:
        return request.vm_memory >> 20
    if options.memory is not None:
        return max(512, (options.memory >> 20) + OVERHEAD_MIB)
    return DEFAULT_MEMORY_MIB


def cpus(options: RunOptions) -> int:
    """Return the processors of the VM: --cpus rounded up, or two, at most those of the host."""
    host = os.cpu_count() or 1
    return min(host, math.ceil(options.cpus)) if options.cpus else min(host, 2)


def resolve_run(request: RunRequest, options: RunOptions) -> ResolvedRun:
    """Fetch the image, build the guest and prepare the host where needed. Return the resolved run.

    Raises InnkeeperError.
    """
    registry.sweep()
    if not request.start:
        request = replace(request, start=_check_start(os.environ.get("INNKEEPER_VM_START") or AUTO, "INNKEEPER_VM_START"))
    if request.name:
        _check_name(request.name)
    if (options.ports or options.publish_all) and not request.network:
        raise InnkeeperError("-p and -P cannot be used with --network none", hint="leave out --network none")
    if options.tty:
        options.terminal_size = options.terminal_size or terminal.size()
    options.architecture = guest.architecture_of(request.guest_file)
    image = resolve(request.reference, options.architecture)
    boot_files = guest.boot_files(request.guest, request.kernel, request.guest_file)
    if request.kernel == "auto" and request.guest_file is None and not boot_files.kernel_is_ours:
        progress.note(f"no kernel of ours is built: booting the one of {boot_files.kernel_from} (`{program_name()} build` makes ours)")
    shares = bool(options.volumes)
    programs = host.prepare(boot_files.kernel, accelerator=request.accel, shares=shares, machine_type=boot_files.machine_type)
    return ResolvedRun(request, options, image, boot_files, programs)


def _check_name(name: str) -> None:
    """Raise InnkeeperError for a name that is taken, before anything slow happens.

    This is only an early answer: `registry.create` decides, under the registry's lock.
    """
    for record in registry.list_vms():
        if record.name == name:
            hint = f"remove it: {program_name()} rm {'-f ' if record.alive else ''}{name}"
            raise InnkeeperError(f"the container name {name} is already in use by container {record.id}", hint=hint)


def network(text: str) -> bool:
    """Return whether the VM has a network card, from the value of `--network`."""
    if text not in ("user", "none"):
        raise InnkeeperError(f"--network {text}: no such network", hint="use user or none")
    return text == "user"


def accelerator(text: str) -> str | None:
    """Return the accelerator from the value of `--accel`, or None to choose automatically."""
    if text not in ("auto", "kvm", "tcg"):
        raise InnkeeperError(f"--accel {text}: no such accelerator", hint="use auto, kvm or tcg")
    return None if text == "auto" else text


def kernel(text: str) -> str:
    """Return the kernel from the value of `--kernel`: a word, or the absolute path of a file."""
    from innkeeper.guest.kernel_choice import check_word

    return check_word(text)


AUTO, COLD, TEMPLATE, POOL = "auto", "cold", "template", "pool"
"""The words for `--start`.

AUTO takes a VM of the pool, or starts from a template, if there is one.
"""


def start(text: str) -> str:
    """Return how the VM starts, from the value of `--start`."""
    return _check_start(text, "--start")


def _check_start(text: str, where: str) -> str:
    if text not in (AUTO, COLD, TEMPLATE, POOL):
        raise InnkeeperError(f"{where} {text}: no such way to start", hint="use auto, cold, template or pool")
    return text


def guest_variant(chosen: Variant, debug: bool, file: Path | None = None) -> Variant:
    """Return the guest's variant from `--guest-variant`, `--debug-guest` or the file of `--guest`.

    `--debug-guest` is an alias of one value of `--guest-variant`.
    """
    if file is not None:
        if debug or chosen != "release":
            raise InnkeeperError("--guest cannot be combined with --guest-variant and --debug-guest", hint=f"set variant in {file}")
        return guest.variant_of(file)
    if debug and chosen not in ("release", "debug"):
        raise InnkeeperError(f"--debug-guest cannot be combined with --guest-variant {chosen}")
    return "debug" if debug else chosen


def mandatory_access_control(guest: Variant) -> str:
    """Return the Linux security module that a guest of this variant runs."""
    return "selinux" if guest == "selinux" else "apparmor"


def kernel_parameters(variant: Variant) -> tuple[str, ...]:
    """Return the kernel parameters that a variant of the guest adds."""
    return guest.LSM_PARAMETERS.get(variant, ())
