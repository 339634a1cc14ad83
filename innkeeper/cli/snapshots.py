"""The commands `snapshots ls` and `snapshots rm`."""

from innkeeper.cli import flags, show


def ls(quiet: bool = False, json: bool = False) -> None:
    """List snapshots, oldest first."""
    from innkeeper.engine import snapshots

    if quiet:
        for one in snapshots.every():
            print(one.tag)
        return
    found = [one.document() for one in snapshots.every()]
    if json:
        show.print_json(found)
        return
    rows = [
        (one["tag"], one["container"], one["facts"]["image"], f"{show.ago(one['created'])} ago", f"{one['size'] / 1e6:.0f}MB")
        for one in found
    ]
    show.table(("SNAPSHOT", "CONTAINER", "IMAGE", "CREATED", "SIZE"), rows)


def rm(tags: list[str]) -> None:
    """Remove snapshots. Containers that were forked from them run on."""
    from innkeeper.engine import snapshots

    for tag in tags:
        snapshots.remove(tag)
        print(tag)


COMMAND = flags.Group(
    name="snapshots",
    text="List and remove snapshots.",
    commands=(
        flags.Command(
            name="ls",
            run=ls,
            flags=(flags.switch("quiet", "-q", "--quiet", help="Tags only."), flags.JSON),
            examples=("snapshots ls", "snapshots ls --json"),
        ),
        flags.Command(name="rm", run=rm, arguments=(flags.words("tags", "TAG..."),), examples=("snapshots rm warm",)),
    ),
    default="ls",
)
