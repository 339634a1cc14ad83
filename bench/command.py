"""The command `bench`: measure what the guest and the agent cost, and compare with the budgets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from bench.figures import Section


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "bench",
        epilog="Examples:  bench;  bench --json figures.json;  bench --only native --rounds 60;  bench --steps;  bench --against ANCHOR",
    )(bench)


def bench(
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures to FILE as JSON.")] = None,
    only: Annotated[
        Literal["all", "guest", "native", "against"],
        typer.Option("--only", help="guest: boots it; native: beside runc, crun; against: beside Kata's guest."),
    ] = "all",
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="DIR", help="Also beside the guest in DIR, bzImage and image, by Kata's shim."),
    ] = None,
    steps: Annotated[bool, typer.Option("--steps", help="Only where the time of one container goes, step by step.")] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Measurements of each container operation.")] = 20,
    boots: Annotated[int, typer.Option("--boots", min=1, help="How many times the guest is booted.")] = 3,
    megabytes: Annotated[int, typer.Option("--megabytes", min=1, help="Size of each stream.")] = 64,
    accel: Annotated[Literal["auto", "kvm", "tcg"], typer.Option("--accel", help="What QEMU is to use.")] = "auto",
) -> None:
    """Measure boot, sizes, containers, streams and calls, in a guest and beside runc and crun on this machine."""
    from bench.measure import BenchRequest, measure

    if only == "against" and against is None:
        raise typer.BadParameter("against needs --against DIR", param_hint="--only")
    in_guest, on_host = only in ("all", "guest") and not steps, only in ("all", "native") or steps
    beside = against if only in ("all", "against") and not steps else None
    request = BenchRequest(
        in_guest=in_guest,
        on_host=on_host,
        rounds=rounds,
        boots=boots,
        megabytes=megabytes,
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
    from innkeeper.errors import InnkeeperError

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
