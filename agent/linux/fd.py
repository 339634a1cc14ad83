"""A descriptor that a `with` block closes."""

import os


class OwnedFd(int):
    """The number of a descriptor that belongs to this `with` block.

    For code that opens a descriptor, uses it and closes it again. A descriptor that tasks wait for
    is an `agent.loop.Fd`, which also wakes them.
    """

    __slots__ = ()

    def __enter__(self) -> int:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self)
