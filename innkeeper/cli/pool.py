"""The command `pool`: keep VMs ready for `run`."""

from typing import TYPE_CHECKING

from innkeeper.cli.flags import Command, LazyModule, single

if TYPE_CHECKING:
    from innkeeper.image import option_values as values
else:
    values = LazyModule("innkeeper.image.option_values")


def pool(size: int = 1, memory: int = 1 << 30) -> int:
    """Keep VMs ready, so that `run` does not have to start one. Runs until it is interrupted.

    Each has started from a template and has run a container of ours. `run` takes one if it needs no
    more than it has.
    """
    from innkeeper.engine import pool as engine
    from innkeeper.engine import pool_kind
    from innkeeper.errors import Interrupted

    kind = pool_kind.default()
    try:
        engine.run(kind, size, memory)
    except Interrupted:
        return 0
    return 0


COMMAND = Command(
    name="pool",
    run=pool,
    flags=(
        single("size", "-n", "--size", kind=int, minimum=1, maximum=64, default=1, help="Idle VMs to keep."),
        single(
            "memory",
            "--memory",
            default="1g",
            parse=lambda text: values.parse_size(text, "--memory") if text else None,
            help="Memory of the host that all idle VMs together may take.",
        ),
    ),
    examples=("pool", "pool -n 4 --memory 2g"),
)
