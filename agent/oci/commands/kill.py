"""`kill`: send a signal to the first process or to all processes."""

import os
import signal

from agent import loop
from agent.container.lifecycle import Status
from agent.errors import Refused, WrongState
from agent.linux.process import pidfd_send_signal
from agent.oci.arguments import NO_REGEX, Option, Parsed
from agent.oci.command_table import Command, Context
from agent.oci.commands.ps import pids_of
from agent.oci.load_container import load_container
from agent.oci.state_dir import StateDir

SIGNALS = {name: getattr(signal, name).value for name in dir(signal) if name.startswith("SIG") and not name.startswith("SIG_")}


def number(word: str) -> int:
    """Return the number of a signal: `9`, `KILL`, `SIGKILL`. Raises Refused."""
    if word.isascii() and word.isdecimal():
        if int(word) <= signal.SIGRTMAX:
            return int(word)
    else:
        name = word.upper() if word.upper().startswith("SIG") else f"SIG{word.upper()}"
        base, plus, offset = name.partition("+")
        if name in SIGNALS:
            return int(SIGNALS[name])
        if base in ("SIGRTMIN",) and plus and offset.isdecimal() and signal.SIGRTMIN + int(offset) <= signal.SIGRTMAX:
            return signal.SIGRTMIN + int(offset)
    raise Refused("SIGNAL", f"{word[:64]!r} is no signal")


def kill(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    It takes no lock: the signal may be meant for what the lock's holder waits for.
    """
    signum = number(parsed.arguments[1] if len(parsed.arguments) > 1 else "TERM")

    async def main() -> None:
        with StateDir.open(context.root, parsed.arguments[0]) as state_dir:
            observed = state_dir.observe()
            if parsed.switch("all") and observed.status is Status.STOPPED:
                _kill_remaining(observed.record.cgroup, signum)
                return
            if observed.status not in (Status.CREATED, Status.RUNNING, Status.PAUSED):
                raise WrongState(f"cannot kill container {state_dir.id!r}: container not running ({observed.status.value})")
            container = load_container(state_dir, observed)
            shared = container.spec.linux.namespaces.get("pid", "") is not None
            if parsed.switch("all") or (shared and signum == signal.SIGKILL):
                container.signal_all(signum)
                return
            pidfd = observed.record.open_init()
            if pidfd < 0:
                raise WrongState(f"cannot kill container {state_dir.id!r}: container not running")
            pidfd_send_signal(pidfd, signum)
            os.close(pidfd)

    loop.run(main())
    return 0


def _kill_remaining(cgroup: str, signum: int) -> None:
    """Send a signal to the processes that the first process has left behind.

    There are some if no pid namespace ended with it. They may be in cgroups below the container's.
    """
    for pid in pids_of(cgroup):
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


OPTIONS = (Option("all", "to every process of the container", short="a"), NO_REGEX)
COMMANDS = (Command("kill", "send a signal (TERM) to the first process of a container", kill, arguments="ID [SIGNAL]", options=OPTIONS),)
