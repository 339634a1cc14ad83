"""Errors that the host's side shows to its user.

One class, so that the command line can print any failure the same way: what failed, then what to do next.
"""


class InnkeeperError(Exception):
    """A failure that the user can act on.

    `message` names the thing that failed (lower case, no final period); `hint` is the next step, if there is one.
    The command line prints both and exits with `exit_status`.
    """

    exit_status = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
