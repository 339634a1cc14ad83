"""Errors of the agent, each with the status code a client sees (google.rpc.Code; 1.3 of the wire's contract)."""

from errno import errorcode

INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
INTERNAL = 13


TEXT_MAX = 2000
"""Characters of what a request is told about one of its own values, which may be of any length."""


class AgentError(Exception):
    """A request failed; `code` and the message go to the client as they are.

    `reason_code` and `metadata` go with them, for programs: see innkeeper.wire.error_info. Without a reason code there is nothing to add.
    """

    code = INTERNAL
    reason_code = ""

    def metadata(self) -> "dict[str, str]":
        """Return what a program would otherwise have to find in the message."""
        return {}


class Refused(AgentError):
    """What was asked for is not applied here, so nothing was done. `field` is the path of the cause, as in the OCI spec."""

    code = INVALID_ARGUMENT
    reason_code = "REFUSED"

    def __init__(self, field: str, reason: str) -> None:
        self.field = _short(field)
        self.reason = _short(reason)
        super().__init__(f"{self.field}: {self.reason}")

    def metadata(self) -> "dict[str, str]":
        return {"field": self.field}


class NotFound(AgentError):
    """An id that names nothing here."""

    code = NOT_FOUND


class AlreadyExists(AgentError):
    """An id that is taken."""

    code = ALREADY_EXISTS


class WrongState(AgentError):
    """The object exists but its life cycle forbids this now."""

    code = FAILED_PRECONDITION


class Unimplemented(AgentError):
    """A method that this agent does not serve."""

    code = UNIMPLEMENTED


class StepFailed(AgentError):
    """A step of setting up a container failed: its name, the call's errno text and the object."""

    reason_code = "STEP_FAILED"

    def __init__(self, step: str, detail: str, errno: int = 0) -> None:
        self.step = _short(step)
        self.detail = _short(detail)
        super().__init__(f"{self.step}: {self.detail}")
        self.errno = errno

    def metadata(self) -> "dict[str, str]":
        return {"step": self.step, "errno": errorcode.get(self.errno, str(self.errno))} if self.errno else {"step": self.step}


def _short(text: str) -> str:
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."
