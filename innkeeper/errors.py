"""Errors that are shown to the user of the host's side, and the exception for signals.

All failures have the same class, so that the command line can print each of them the same way: what
failed, then what to do next.
"""

import signal


class InnkeeperError(Exception):
    """A failure that the user can act on.

    `message` names what failed (lower case, no final period). `hint` is the next step, if there is
    one. The command line prints both and exits with `exit_status`.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_status: int = 125) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_status = exit_status


class Interrupted(BaseException):
    """A signal that asked this process to end.

    It is raised as an exception so that everything open is closed on the way out. It is a
    BaseException, so that no handler for errors catches it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
