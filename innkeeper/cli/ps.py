"""The command `ps`: list containers, or the processes of one."""

from typing import TYPE_CHECKING

from innkeeper.cli import flags, show

if TYPE_CHECKING:
    from innkeeper.engine import records


def ps(name: str = "", everything: bool = False, quiet: bool = False, json: bool = False) -> None:
    """List containers; with CONTAINER, the processes in it."""
    if name:
        _processes(name, json)
        return
    from innkeeper.engine import records

    found = [one for one in records.all_containers() if everything or one.alive]
    if json:
        show.print_json([{**one.document(), "State": one.status(), "Status": _status(one)} for one in found])
    elif quiet:
        for one in found:
            print(one.id)
    else:
        show.table(("CONTAINER", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"), [_row(one) for one in found])


def _row(one: "records.Container") -> tuple[str, ...]:
    facts, created = one.facts, f"{show.ago(one.created)} ago"
    cells = (one.id, facts.image, " ".join(facts.command), created, _status(one), " ".join(facts.ports), one.name)
    return tuple(map(_short, cells))


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _status(one: "records.Container") -> str:
    """Return the status in the words of docker's `ps`."""
    facts, status = one.facts, one.status()
    if status in ("running", "paused"):
        return f"Up {show.ago(facts.started)}{' (Paused)' if status == 'paused' else ''}"
    if status == "exited":
        ago = f" {show.ago(facts.finished)} ago" if facts.finished else ""
        return f"Exited ({facts.exit_status}){ago}{' (out of memory)' if facts.oom_killed else ''}"
    return f"Created (failed: {facts.exit_status})" if facts.error else "Created"


def _processes(name: str, json: bool) -> None:
    """Print the processes of one container."""
    import datetime

    from innkeeper.engine import guest_agent, records

    container = records.lookup(name)
    with guest_agent.connected(container) as agent:
        found = guest_agent.list_processes(agent, container.guest_id)
    if json:
        show.print_json(found)
        return
    rows = [
        (
            str(process["pid"]),
            str(process["parent_pid"]),
            str(process["uid"]),
            process["state"],
            f"{process['cpu_time_ns'] / 1e9:.2f}",
            f"{process['resident_bytes'] / 1e6:.1f}M",
            datetime.datetime.fromtimestamp(process["started"]).strftime("%H:%M:%S"),
            _short(" ".join(process["args"])),
        )
        for process in found
    ]
    show.table(("PID", "PPID", "UID", "S", "CPU", "RSS", "STARTED", "COMMAND"), rows)


COMMAND = flags.Command(
    name="ps",
    run=ps,
    arguments=(flags.container(metavar="[CONTAINER]", help="Show the processes in this container.", required=False),),
    flags=(
        flags.switch("everything", "-a", "--all", help="Also those that have ended."),
        flags.switch("quiet", "-q", "--quiet", help="Ids only."),
        flags.JSON,
    ),
    examples=("ps -a", "ps --json", "ps web"),
)
