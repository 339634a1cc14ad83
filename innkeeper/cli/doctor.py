"""`doctor`: what was found, what was proven, what is missing and how to get it."""

from typing import Annotated, Any

import typer

from innkeeper.cli.show import Json


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("doctor", epilog="Examples:  doctor;  doctor --guest;  doctor --json")(doctor)


def doctor(
    guest: Annotated[bool, typer.Option("--guest", help="Also boot the guest and ask it (builds it the first time).")] = False,
    json: Json = False,
) -> int:
    """Say what this host has for running guests, what was proven to work, and how to get what is missing.

    Exit status 1 when something that `run` cannot do without is missing.
    """
    from innkeeper.cli import health, show

    report = health.examine(guest)
    if json:
        show.print_json(report)
    else:
        _print(report)
    return 0 if report["ready"] else 1


def _print(report: dict[str, Any]) -> None:
    from innkeeper.cli import show

    rows = [
        (name, ("found" if entry["path"] else "MISSING" if entry["required"] else "absent"), entry["version"] or entry["why"])
        for name, entry in report["programs"].items()
    ]
    show.table(("PROGRAM", "", ""), rows)
    print()
    show.table(("PROVEN", "", ""), [(name, "yes" if entry["works"] else "no", entry["detail"]) for name, entry in report["proven"].items()])
    if report["guest"]:
        print()
        show.table(("GUEST", ""), [(name, str(value)) for name, value in report["guest"].items()])
    if report["missing_command"]:
        print(f"\nto get what is missing: {report['missing_command']}")
    print(f"\n{'ready: run works here' if report['ready'] else 'not ready: see MISSING above'}")
