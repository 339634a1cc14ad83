"""The command `bench`: measure what the guest and the agent cost, and compare with the budgets."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from innkeeper.cli import flags
from innkeeper.errors import InnkeeperError

if TYPE_CHECKING:
    from bench.figures import Section


def bench(json: Path | None = None, only: str = "all", against: Path | None = None, steps: bool = False, **given: Any) -> None:
    """Measure boot, sizes, containers, streams and calls.

    This is done in a guest, and beside runc, crun and podman on this machine.
    """
    from bench.measure import PARTS, BenchRequest, measure

    if only == "against" and against is None:
        raise InnkeeperError("--only against needs --against DIR")
    parts = {"native"} if steps else set(PARTS) if only == "all" else {only} & set(PARTS)
    beside = against if only in ("all", "against") and not steps else None
    accel = given.pop("accel", "auto")
    request = BenchRequest(
        parts=frozenset(parts),
        **{"rounds": 20, "boots": 3, "runs": 5, "megabytes": 64, **given},
        accel=None if accel == "auto" else accel,
        step_by_step=steps,
        against=beside,
    )
    host, sections = measure(request)
    if json is not None:
        _write(json, host, sections)
    _print(host, sections)


def _write(path: Path, host: dict[str, str], sections: "list[Section]") -> None:
    import json

    from bench.figures import as_document

    try:
        path.write_text(json.dumps(as_document(host, sections), indent=2) + "\n")
    except OSError as error:
        raise InnkeeperError(f"{path}: {error.strerror}") from error


def _print(host: dict[str, str], sections: "list[Section]") -> None:
    """Print one table with a part for each section.

    Each figure has its budget beside it, and whether the budget is met.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bench.figures import format_value

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    table = Table(box=SIMPLE_HEAD, highlight=False)
    table.add_column("", min_width=42)
    for heading in ("median", "best"):
        table.add_column(heading, justify="right", min_width=7)
    table.add_column("")
    table.add_column("of", justify="right")
    table.add_column("budget", overflow="fold")
    for section in sections:
        note = escape(section.left_out or section.note)
        table.add_row(f"[bold]{section.title}[/]{f' [dim]({note})[/]' if note else ''}")
        for row in section.figures:
            mark = "" if row.met is None else " [green]met[/]" if row.met else " [bold red]NOT MET[/]"
            cells = (f"  {row.name}", format_value(row.median, row.unit), format_value(row.best, row.unit), row.unit, str(row.samples))
            table.add_row(*cells, f"{row.budget}{mark}")
        table.add_section()
    console.print(table)
    console.print("; ".join(f"{name}: {value}" for name, value in host.items()), style="dim", highlight=False, soft_wrap=True)


_AGAINST = "Also beside the guest in DIR, bzImage and image, by Kata's shim."

COMMAND = flags.Command(
    name="bench",
    run=bench,
    flags=(
        flags.single("json", "--json", kind=flags.PATH, metavar="FILE", help="Also write the figures to FILE as JSON."),
        flags.single(
            "only",
            "--only",
            choices=(
                "all",
                "guest",
                "channels",
                "shares",
                "memory",
                "idle",
                "commands",
                "forks",
                "shim",
                "kubernetes",
                "native",
                "against",
            ),
            default="all",
            help="One part; shim: under containerd; kubernetes: a Deployment; native: beside runc, crun; against: beside Kata's guest.",
        ),
        flags.single("against", "--against", kind=flags.PATH, metavar="DIR", help=_AGAINST),
        flags.switch("steps", "--steps", help="Only where the time of one container goes, step by step."),
        flags.single("rounds", "--rounds", kind=int, minimum=1, default=20, help="Measurements of each container operation."),
        flags.single("boots", "--boots", kind=int, minimum=1, default=3, help="How many times the guest is booted."),
        flags.single("runs", "--runs", kind=int, minimum=1, default=5, help="Measurements of each command."),
        flags.single("megabytes", "--megabytes", kind=int, minimum=1, default=64, help="Size of each stream."),
        flags.single("accel", "--accel", choices=("auto", "kvm", "tcg"), default="auto", help="What QEMU is to use."),
    ),
    examples=("bench", "bench --json figures.json", "bench --only native --rounds 60", "bench --steps", "bench --against ANCHOR"),
)
