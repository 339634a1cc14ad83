"""The command `doctor`: check whether this host can run containers, build guests and run tests.

It reports what was found and proven, and how to get what is missing.
"""

from typing import Any

from innkeeper.cli import flags, show


def doctor(guest: bool = False, json: bool = False) -> int:
    """Say whether this host can run containers, build the guest and run the tests.

    For what is missing it says how to get it. Exit status 0 when running works, 1 when it does not:
    of building and testing only the report tells.
    """
    from innkeeper.cli import doctor_checks

    report = doctor_checks.examine(guest)
    if json:
        show.print_json(report)
    else:
        _print(report)
    return 0 if report["ready"] else 1


def _print(report: dict[str, Any]) -> None:
    show.table(("PROGRAM", "", "", "FOR"), [_program_row(name, entry) for name, entry in report["programs"].items()])
    print()
    show.table(("PROVEN", "", ""), [(name, "yes" if entry["works"] else "no", entry["detail"]) for name, entry in report["proven"].items()])
    if report["guest"]:
        print()
        show.table(("GUEST", ""), [(name, str(value)) for name, value in report["guest"].items()])
    for part in report["parts"].values():
        print(f"\n{part['title']}: {'ready' if part['ready'] else 'not ready'}")
        for note in part["notes"] if part["ready"] else ():
            print(f"  {note}")
        for reason in part["reasons"]:
            print(f"  {reason}")
        if part["missing"]:
            print(f"  missing: {', '.join(part['missing'])}")
            print(f"  to get it: {part['command']}")
        for name, purpose in part["optional"].items():
            print(f"  {name} is missing: only {purpose} needs it, and installs it on first use if permitted")


def _program_row(name: str, entry: dict[str, Any]) -> tuple[str, str, str, str]:
    needed_by = ", ".join(entry["needed_by"]) or entry["only_for"]
    return name, "found" if entry["path"] else "absent", entry["version"] or entry["why"], needed_by


COMMAND = flags.Command(
    name="doctor",
    run=doctor,
    flags=(flags.switch("guest", "--guest", help="Also boot the guest and ask it (builds it the first time)."), flags.JSON),
    examples=("doctor", "doctor --guest", "doctor --json"),
)
