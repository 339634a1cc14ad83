"""A step of a plan: an object that can be printed before it is executed."""


class Operation:
    """One step of the plan. `execute` runs in the child; `root` is the descriptor of the container's root."""

    __slots__ = ()

    def describe(self) -> str:
        """One line that says what `execute` does."""
        raise NotImplementedError

    def execute(self, root: int) -> None:
        """Do it. Raises OSError."""
        raise NotImplementedError
