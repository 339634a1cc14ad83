"""Failures of calls, with the status code that containerd tells them apart by."""

from innkeeper.wire import status


class CallError(Exception):
    """A call that fails with `code`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def not_found(message: str) -> CallError:
    """Return the error for something that is not there, or not any more."""
    return CallError(status.NOT_FOUND, message)


def already_exists(message: str) -> CallError:
    """Return the error for an id that is taken."""
    return CallError(status.ALREADY_EXISTS, message)


def wrong_state(message: str) -> CallError:
    """Return the error for a call that does not fit the state of a process."""
    return CallError(status.FAILED_PRECONDITION, message)


def unimplemented(message: str) -> CallError:
    """Return the error for what this shim does not do."""
    return CallError(status.UNIMPLEMENTED, message)
