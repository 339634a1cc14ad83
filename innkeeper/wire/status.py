"""The status codes of google.rpc, which ttRPC uses."""

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

_NAMES = {value: name for name, value in globals().items() if isinstance(value, int)}


def name(code: int) -> str:
    """Return the name of a code, or its number as text if google.rpc does not define it."""
    return _NAMES.get(code, str(code))
