"""`ps`: the processes of a container, as this machine numbers them."""

import json
import subprocess
from pathlib import Path

from agent.container.cgroup.manager import Cgroup
from agent.errors import NotFound, Refused
from agent.oci.arguments import Option, Parsed
from agent.oci.command_table import Context, Verb
from agent.oci.state_dir import Place
from agent.oci.status import condition_of
from agent.oci.tables import table


def ps(context: Context, parsed: Parsed) -> int:
    """The verb. Words after the id go to this machine's ps(1), whose lines are then filtered by their PID column."""
    with Place.find(context.root, parsed.words[0]) as place:
        record = condition_of(place).record
    pids = _pids(record.cgroup)
    if parsed.text("format", "table") == "json":
        print(json.dumps(pids))
    elif len(parsed.words) > 1:
        print(_by_ps(pids, parsed.words[1:]))
    else:
        print(table(["PID", "COMMAND"], [[str(pid), command] for pid in pids if (command := _command(pid))]))
    return 0


def _pids(group: str) -> list[int]:
    try:
        cgroup = Cgroup.attach(Path(group), [], ())
    except FileNotFoundError:
        return []
    pids = cgroup.pids()
    cgroup.close()
    return pids


def _command(pid: int) -> str:
    """The command line of a process; "" when it has just ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return b" ".join(words).decode("utf-8", "backslashreplace") or f"[{Path(f'/proc/{pid}/comm').read_text().strip()}]"
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _by_ps(pids: list[int], options: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotFound("this machine has no ps(1): leave its options out") from None
    if done.returncode:
        raise Refused("ps", done.stderr.strip() or f"ps {' '.join(options)} failed")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise Refused("ps", f"the output of ps {' '.join(options)} has no PID column")
    column = head.split().index("PID")
    wanted = {str(pid) for pid in pids}
    return "\n".join([head, *[line for line in lines if line.split(None, column + 1)[column] in wanted]])


VERBS = (
    Verb(
        "ps",
        "list the processes of a container",
        ps,
        words="ID [OPTION...]",
        options=(Option("format", "table or json", "FORMAT", short="f", choices=("table", "json")),),
        interleaved=False,
    ),
)
