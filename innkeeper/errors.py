"""Errors that the host's side shows to its user, and the end by a signal.

One class of errors, so that the command line can print any failure the same way: what failed, then what to do next.
"""

import signal


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


class Interrupted(BaseException):
    """A signal asked this process to end; raised so that everything open is closed on the way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
