"""Start the VM of a container from a template, and have templates made.

A template is a guest that has booted, loaded its agent and run a container of ours (see
`template_maker`). If anything of a clone's start fails (see `clones`), it is ended and the VM boots
as usual.

Where a pool runs, it is asked first: it has clones that wait (see `pool`).
"""

import subprocess
import sys
from dataclasses import replace

from innkeeper import progress
from innkeeper.client import Client, RpcError, connect
from innkeeper.engine import clones
from innkeeper.engine.resolve import AUTO, COLD, POOL, TEMPLATE, ResolvedRun, RunRequest
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT, CloneableVm, HostPrograms, VmConfig, child_processes, pooled, registry, template
from innkeeper.vm.network import PortError
from innkeeper.vm.pooled import PoolBusy, PooledVm

MEMORY_CLASSES_MIB = (256, 512, 1024, 2048, 4096, 8192, 16384)
"""Sizes of a VM for which templates are made. A clone's memory is that of its template.

The container's own limit is exact, whatever the VM has.
"""


def configuration(request: RunRequest, config: VmConfig) -> VmConfig | None:
    """Return `config` as a clone's, or None if the VM cannot start from a template."""
    memory = config.memory_mib
    if request.vm_memory is None:
        memory = next((size for size in MEMORY_CLASSES_MIB if size >= memory), memory)
    if memory not in MEMORY_CLASSES_MIB:
        return None
    return clones.configuration(replace(config, memory_mib=memory))


def start(resolved: ResolvedRun, config: VmConfig, entry: registry.Entry) -> tuple[CloneableVm | PooledVm, Client] | None:
    """Return a running clone in which a container may be created, and a connection to its agent.

    None means to boot instead.

    A template that cannot be used is removed, so that a new one is made. With `--start template`
    that is done at once, and a second failure is an error. Raises InnkeeperError.
    """
    asked = resolved.request.start
    clone = None if asked == COLD else configuration(resolved.request, config)
    if clone is None:
        if asked in (TEMPLATE, POOL):
            raise InnkeeperError(f"--start {asked}: no templates are made for such a VM", hint="docs/templates.md lists them")
        return None
    vm = CloneableVm(clone, resolved.host, entry)
    key = vm.template_key()
    if asked in (AUTO, POOL) and (claimed := _claim(clone, key, entry, required=asked == POOL)) is not None:
        return claimed
    if asked == TEMPLATE:
        return start_required(vm, resolved.host, key)
    try:
        return clones.load(vm, key)
    except PortError:
        raise
    except (InnkeeperError, RpcError, OSError) as error:
        progress.warn(f"the guest's template cannot be used, booting instead: {error}")
        return None


def start_required(vm: CloneableVm, host: HostPrograms, key: str) -> tuple[CloneableVm, Client]:
    """Start the VM from the template, which is made if there is none that can be used.

    Raises InnkeeperError.
    """
    for again in (False, True):
        make_now(host, vm.config, key)
        try:
            if (started := clones.load(CloneableVm(vm.config, host, vm.entry), key)) is not None:
                return started
        except PortError:
            raise
        except (InnkeeperError, RpcError, OSError) as error:
            if again:
                raise InnkeeperError(f"--start template: {error}") from error
            progress.warn(f"the guest's template cannot be used, making another: {error}")
    raise InnkeeperError("--start template: another process removes it")


def _claim(clone: VmConfig, key: str, entry: registry.Entry, *, required: bool) -> tuple[PooledVm, Client] | None:
    """Return a VM of the pool and a connection, or None to start one.

    Raises InnkeeperError if it is `required`, or if a port cannot be had.
    """
    try:
        vm = pooled.claim(clone, key, entry)
        try:
            return vm, connect(vm.address(AGENT_PORT), timeout=clones.READY_SECONDS)
        except BaseException:
            vm.abandon()
            raise
    except PortError:
        raise
    except (InnkeeperError, OSError) as error:
        if required:
            raise InnkeeperError(f"--start pool: {error}", hint="see docs/howto/pool.md") from error
        if isinstance(error, PoolBusy):
            progress.debug(f"not from the pool: {error}")
        else:
            progress.warn(f"the pool's VM cannot be used, starting another: {error}")
    return None


def make_later(resolved: ResolvedRun, config: VmConfig, entry: registry.Entry) -> None:
    """Have a process of its own make the template for such runs, unless that failed a moment ago.

    It has the lowest priority, survives this process, and reports to nobody.
    """
    clone = None if resolved.request.start == COLD else configuration(resolved.request, config)
    if clone is None or template.recent_failure(CloneableVm(clone, resolved.host, entry).template_key()):
        return
    maker = _maker()
    assert maker.stdin is not None
    with maker.stdin:
        maker.stdin.write(_order(resolved.host, clone))
    child_processes.leave(maker)


def make_now(host: HostPrograms, clone: VmConfig, key: str) -> None:
    """Make the template, unless there is one, and wait for it. Raises InnkeeperError.

    The maker waits for another one too, but what it prints goes nowhere. So the wait is here first.
    """
    if template.exists(key):
        return
    with template.making(key, wait=True):
        if template.exists(key):
            return
    with progress.step("making a template of the guest"):
        maker = _maker("--now")
        maker.communicate(_order(host, clone))
    if maker.returncode != 0:
        why = template.recent_failure(key) or f"its maker ended with status {maker.returncode}"
        raise InnkeeperError(f"no template could be made: {why}")


def _maker(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start the process that makes templates. It waits for its order on standard input."""
    argv = [sys.executable, "-P", "-m", "innkeeper.engine.template_maker", *arguments]
    null = subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True)


def _order(host: HostPrograms, clone: VmConfig) -> bytes:
    """Return what the maker needs. What is the user's is left out: ports, volumes, the image."""
    import pickle

    return pickle.dumps((replace(clone, disks=(), shares=(), forwards=()), host))
