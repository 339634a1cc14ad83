"""The process that makes a template: boot a guest, load and use everything once, save it.

It runs at the lowest priority and is started with a pickled (VmConfig, HostPrograms) on standard
input. One key is made by one process at a time.
"""

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from innkeeper import progress
from innkeeper.client import Agent, RpcError, connect
from innkeeper.engine import guest_agent, guest_setup, warm_up
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT, CloneableVm, HostPrograms, VmConfig, process_info, registry, template
from innkeeper.vm.boot import boot

NOW = "--now"
"""The argument of a call that waits for the template.

It then has no low priority, and an earlier failure does not count.
"""
BOOT_SECONDS = 300.0


def main(arguments: Sequence[str]) -> int:
    """Make the template that standard input asks for. Return 0 if it exists in the end."""
    config, host = pickle.load(sys.stdin.buffer)
    progress.be_quiet()
    if NOW not in arguments:
        os.nice(process_info.LOWEST)
        process_info.set_priority(os.getpid(), process_info.LOWEST)
    return 0 if make(config, host, again=NOW in arguments) else 1


def make(config: VmConfig, host: HostPrograms, *, again: bool) -> str | None:
    """Make the template for clones like `config`, unless there is one or another process makes it.

    With `again`, wait for that process, and do not mind a failure a short time ago. Return the key,
    or None if there is no template. A failure is remembered (`template.recent_failure`).
    """
    entry = registry.create()
    try:
        vm = CloneableVm(replace(config, disks=warm_up.disks(entry.folder)), host, entry)
        key = vm.template_key()
        with template.making(key, wait=again) as mine:
            if mine and not template.exists(key) and (again or not template.recent_failure(key)):
                _make(vm, key)
            return key if template.exists(key) else None
    finally:
        entry.release()


def _make(vm: CloneableVm, key: str) -> None:
    try:
        with vm:
            try:
                boot_and_publish(vm, key)
            except (RpcError, OSError) as error:
                raise guest_agent.cause(vm, error) from error
    except (InnkeeperError, OSError) as error:
        # Not before the end of the VM: the disk may be full of its memory, and the note needs a
        # block.
        template.note_failure(key, str(error))
        return
    template.prune(keep=key)


def boot_and_publish(vm: CloneableVm, key: str, use: Callable[[Agent], None] = warm_up.use_everything) -> None:
    """Boot the VM, let `use` do something in it, and save it as the template `key`.

    Nothing that `use` leaves behind without using it any more is in the template. Raises
    InnkeeperError, RpcError and OSError.
    """
    boot(vm, BOOT_SECONDS)
    with connect(vm.address(AGENT_PORT), timeout=guest_agent.CONNECT_SECONDS) as client:
        agent = Agent(client, BOOT_SECONDS)
        agent.reseed_random(os.urandom(64))
        if vm.config.network:
            guest_setup.configure_network(agent)
        # What lasts does not fill the memory that it gets: the agent loads it before and after it
        # has used memory, and not in between.
        agent.prepare_template()
        use(agent)
        agent.prepare_template()
    vm.take_free_pages()
    # A new connection: nothing that the agent keeps for an older one is left.
    with connect(vm.address(AGENT_PORT), timeout=guest_agent.CONNECT_SECONDS) as client:
        agent = Agent(client, BOOT_SECONDS)
        agent.prepare_template(vm.used_blocks())
        vm.leave_free_pages()
        agent.get_clock()  # answered when the agent has also wiped what it had for the call before
    vm.publish(key)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
