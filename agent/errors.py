"""Exceptions of the agent.

Each has the status code that a client sees (google.rpc.Code; section 1.3 of the wire's contract).
"""

from errno import errorcode

from innkeeper.wire import status

TEXT_MAX = 2000
"""Most characters of a part of a message.

A message may quote a value of the request, which may be of any length.
"""


class AgentError(Exception):
    """A request failed. `code` and the message are sent to the client unchanged.

    `reason_code` and `metadata` are sent along for programs (see innkeeper.wire.error_info). An
    empty reason code means that there are none.
    """

    code = status.INTERNAL
    reason_code = ""

    def metadata(self) -> "dict[str, str]":
        """Return facts that a program would otherwise have to extract from the message."""
        return {}


class Refused(AgentError):
    """The request asks for something that this agent does not apply, so nothing was done.

    `field` is the path of the cause, written as in the OCI spec.
    """

    code = status.INVALID_ARGUMENT
    reason_code = "REFUSED"

    def __init__(self, field: str, reason: str) -> None:
        self.field = _short(field)
        self.reason = _short(reason)
        super().__init__(f"{self.field}: {self.reason}")

    def metadata(self) -> "dict[str, str]":
        return {"field": self.field}


class NotFound(AgentError):
    """No object has this id."""

    code = status.NOT_FOUND


class AlreadyExists(AgentError):
    """The id is in use."""

    code = status.ALREADY_EXISTS


class WrongState(AgentError):
    """The object exists, but its present state does not allow the operation."""

    code = status.FAILED_PRECONDITION


class Unimplemented(AgentError):
    """This agent does not serve the method."""

    code = status.UNIMPLEMENTED


class StepFailed(AgentError):
    """A step of an operation failed.

    `step` is its name, `detail` the error text with the object, and `errno` the error number, or
    0.
    """

    reason_code = "STEP_FAILED"

    def __init__(self, step: str, detail: str, errno: int = 0) -> None:
        self.step = _short(step)
        self.detail = _short(detail)
        super().__init__(f"{self.step}: {self.detail}")
        self.errno = errno

    def metadata(self) -> "dict[str, str]":
        return {"step": self.step, "errno": errorcode.get(self.errno, str(self.errno))} if self.errno else {"step": self.step}


def _short(text: str) -> str:
    """Return the text, truncated to TEXT_MAX characters."""
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."
