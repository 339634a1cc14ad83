"""A step of a plan: an object that can be printed before it is executed."""


class Operation:
    """One step of a plan. `execute` runs in the child."""

    __slots__ = ()

    def describe(self) -> str:
        """Return one line that says what `execute` does."""
        raise NotImplementedError

    def execute(self, root: int) -> None:
        """Execute the step. `root` is the descriptor of the container's root. Raises OSError."""
        raise NotImplementedError
