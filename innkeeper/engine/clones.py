"""Start a VM from a template, and make it one of its own.

A VM that starts from a template is a clone. Before anything of a container runs in it,
`ResumeClone` gives it what it must not share with other clones (docs/templates.md). Whatever of
that fails, the clone is ended.
"""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from innkeeper.client import Agent, Client, RpcError, connect
from innkeeper.engine import clock
from innkeeper.errors import InnkeeperError
from innkeeper.vm import AGENT_PORT, CloneableVm, Disk, VirtualMachine, VmConfig, qemu, template
from innkeeper.vm.config import VIRT
from innkeeper.vm.network import PortError
from innkeeper.wire.pb import guest_pb2

READY_SECONDS = 15.0
"""Seconds that a clone may take to answer. It takes a few tenths, on a busy host a few seconds."""
EXIT_SECONDS = 0.2
"""Seconds until a process that is ending has ended."""
CLOCK_TOLERANCE_NS = 50_000_000
"""Nanoseconds that a clone's clock may be off once it is set."""
CLOCK_ATTEMPTS = 6
"""How often it is compared, and set, before one that may be right is taken as it is."""
CLOCK_ATTEMPTS_MAX = 40
"""The same before one that is wrong is an error. Some seconds on a busy host."""
UNUSED_DISK = 4096
"""Size in bytes of a disk that nobody uses."""


def configuration(config: VmConfig) -> VmConfig | None:
    """Return `config` as a clone's, or None if the VM cannot start from a template."""
    if len(config.shares) > qemu.SHARE_PORTS or config.machine_type == VIRT:
        return None
    return replace(config, cloneable=True, gives_memory_back=False, machine_type="q35")


def unused_disks(config: VmConfig, folder: Path) -> tuple[Disk, Disk]:
    """Make the disks that every template has, for a clone that uses none. Raises OSError."""
    scratch = folder / "unused.img"
    with scratch.open("wb") as file:
        file.truncate(UNUSED_DISK)
    return Disk(config.root, read_only=True), Disk(scratch, volatile=True)


def load(vm: CloneableVm, key: str) -> tuple[CloneableVm, Client] | None:
    """Start the VM from the template. Return it and a connection, or None if there is no template.

    A template that is damaged or cannot be used is removed, and the error says so. Raises PortError
    for a port that cannot be had, which is not the template's fault, as it is not if somebody kills
    the VM, and InnkeeperError, RpcError and OSError.
    """
    try:
        with template.found(key) as known:
            if known is None:
                return None
            vm.template = known
            vm.start()
            return vm, resumed(vm)
    except PortError:
        vm.end()
        raise
    except (InnkeeperError, RpcError, OSError):
        killed = _was_killed(vm)
        vm.end()
        if vm.template is not None and not killed:
            template.remove(key)
        raise
    except BaseException:
        vm.end()
        raise


def _was_killed(vm: VirtualMachine) -> bool:
    """Return whether QEMU or a helper was killed, by a user or because memory ran out."""
    for process in vm.processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if process.wait(EXIT_SECONDS) == -signal.SIGKILL:  # its connections end before it does
                return True
    return False


def resumed(vm: VirtualMachine, seconds: float = READY_SECONDS) -> Client:
    """Make the guest of a new clone or fork one of its own.

    Return the connection over which that was done. Raises InnkeeperError, RpcError and OSError.
    """
    vm.wait_channel(seconds)
    client = connect(vm.address(AGENT_PORT), timeout=seconds)
    try:
        identify(vm, Agent(client, seconds))
    except BaseException:
        client.close()
        raise
    return client


def identify(vm: VirtualMachine, agent: Agent, above: int = 0) -> int:
    """Make the guest of a clone one of its own, under a new generation. Return that.

    `above` is the generation of one that is so already. It keeps its hardware address, which no
    other clone has. A card on a `Tap` is not part of the template: it has its own. Raises
    InnkeeperError, RpcError and OSError.
    """
    generation = max(time.time_ns(), above + 1)
    request = guest_pb2.ResumeCloneRequest(entropy=os.urandom(64), realtime_ns=time.time_ns(), generation=generation)
    if vm.config.network is True and not above:
        request.hardware_addresses.add(device="eth0", address=hardware_address())
    before = time.time_ns()
    answer = agent.resume_clone(request)
    after = time.time_ns()
    if request.hardware_addresses:
        vm.announce()
    if answer.generation != generation:
        raise InnkeeperError(f"generation of the clone: {answer.generation} in place of {generation}")
    if not before - CLOCK_TOLERANCE_NS <= answer.realtime_ns <= after + CLOCK_TOLERANCE_NS:
        raise InnkeeperError(f"the clock of the clone is off by {(answer.realtime_ns - after) / 1e9:.3f} s")
    if answer.realtime_ns < after - CLOCK_TOLERANCE_NS:
        _correct_clock(agent)  # it is late by the time that the request was on its way
    return generation


def _correct_clock(agent: Agent) -> None:
    """Set the clock of a clone until an answer proves it right. Raises InnkeeperError, RpcError.

    The first request to an emulated guest is on its way for some tenths of a second, in which the
    code of the guest is translated. The later ones are faster, and each is as exact as its round
    trip is short. On a host that is too busy for that, one that may be right has to do after
    CLOCK_ATTEMPTS. One that is wrong is set again: the request that set it was late, too.
    """
    for attempt in range(1, CLOCK_ATTEMPTS_MAX + 1):
        before = time.time_ns()
        there = agent.get_clock()
        half = (time.time_ns() - before) // 2
        off = there - before - half
        wrong = abs(off) - half > CLOCK_TOLERANCE_NS
        if abs(off) + half <= CLOCK_TOLERANCE_NS or (attempt >= CLOCK_ATTEMPTS and not wrong):
            return
        if abs(off) > CLOCK_TOLERANCE_NS // 2:
            try:
                clock.set_now(agent, ahead_ns=half)
            except RpcError as error:
                if error.code in clock.PERMANENT:
                    return
                raise
    raise InnkeeperError(f"the clock of the clone is off by {off / 1e9:.3f} s")


def hardware_address() -> str:
    """Return a random MAC address of QEMU's range."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in os.urandom(3))
