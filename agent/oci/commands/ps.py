"""`ps`: the processes of a container, with their pids on this host."""

import subprocess
from pathlib import Path

from agent.container.cgroup.manager import Cgroup
from agent.errors import NotFound, Refused
from agent.oci.arguments import FORMAT, Parsed
from agent.oci.command_table import Command, Context
from agent.oci.output import compact
from agent.oci.state_dir import StateDir


def ps(context: Context, parsed: Parsed) -> int:
    """Run the subcommand. Return the exit status.

    Words after the id, else -ef, go to the host's ps(1). Its output is then filtered by the PID
    column.
    """
    with StateDir.open(context.root, parsed.arguments[0]) as state_dir:
        record = state_dir.observe().record
    pids = pids_of(record.cgroup)
    if parsed.text("format", "table") == "json":
        print(compact(pids or None))
    else:
        print(_by_ps(pids, parsed.arguments[1:] or ("-ef",)))
    return 0


def pids_of(path: str) -> list[int]:
    """Return the pids of a cgroup and of those below it, none if it does not exist."""
    try:
        cgroup = Cgroup(Path(path), [], mknod=False)
    except FileNotFoundError:
        return []
    pids = cgroup.pids()
    cgroup.close()
    return pids


def _by_ps(pids: list[int], options: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotFound("this machine has no ps(1): --format json lists the processes without it") from None
    if done.returncode:
        raise Refused("ps", done.stderr.strip() or f"ps {' '.join(options)} failed")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise Refused("ps", f"the output of ps {' '.join(options)} has no PID column")
    column = head.split().index("PID")
    wanted = {str(pid) for pid in pids}
    return "\n".join([head, *[line for line in lines if line.split(None, column + 1)[column] in wanted]])


COMMANDS = (Command("ps", "list the processes of a container", ps, arguments="ID [OPTION...]", options=(FORMAT,), interleaved=False),)
