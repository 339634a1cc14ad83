"""The command `image`: what built guest images consist of."""

from pathlib import Path

from innkeeper.cli import flags
from innkeeper.cli.flags import Argument, Command, Group


def diff(old: Path, new: Path, json: bool = False) -> int:
    """Compare two guest images: files, packages, kernel symbols, and modules of the agent.

    An image is an output folder of `build`, or a root image alone. Exit status: 0 if they are the
    same, 1 if not.
    """
    from innkeeper.guest import diff as differences

    found = differences.compare(old, new)
    if json:
        import json as writer

        print(writer.dumps(found, indent=1))
    else:
        print(differences.as_text(found), end="")
    return 0 if differences.is_same(found) else 1


COMMAND = Group(
    name="image",
    text="Look into built guest images.",
    commands=(
        Command(
            name="diff",
            run=diff,
            arguments=(
                Argument(field="old", metavar="OLD", kind=flags.PATH, help="An output folder of `build`, or a root image."),
                Argument(field="new", metavar="NEW", kind=flags.PATH, help="Another one."),
            ),
            flags=(flags.JSON,),
            examples=("image diff out-old out", "image diff --json out-old/rootfs.erofs out/rootfs.erofs"),
        ),
    ),
)
