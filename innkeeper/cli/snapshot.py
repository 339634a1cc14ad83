"""The command `snapshot`: save a running container."""

from innkeeper.cli import flags


def snapshot(name: str, tag: str) -> None:
    """Save a running CONTAINER as TAG: its memory, its processes and what it has written.

    It runs on. `fork TAG` starts containers from it, `snapshots` lists what is saved.
    """
    from innkeeper.engine import records, snapshots

    print(snapshots.take(records.lookup(name), tag).tag)


COMMAND = flags.Command(
    name="snapshot",
    run=snapshot,
    arguments=(flags.container(), flags.Argument(field="tag", metavar="TAG", help="A name for the snapshot.")),
    examples=("snapshot web warm",),
)
