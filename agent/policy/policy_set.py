"""The policies in force: those of the image, which are fixed, and one that the host may set.

All of them must allow a request.
"""

from agent import log
from agent.errors import Refused
from agent.policy.check import Denied, check
from agent.policy.parser import Policy, parse


class PolicySet:
    """The policies in force. Without any, every request is allowed."""

    def __init__(self) -> None:
        self._fixed: list[Policy] = []
        self._set: Policy | None = None
        self._unreadable = ""

    def read(self, path: str) -> None:
        """Read a policy of the image.

        A file that cannot be read or parsed denies every request, since it is unknown what it was
        meant to allow.
        """
        try:
            with open(path, encoding="utf-8") as file:
                self._fixed.append(parse(file.read()))
        except (OSError, UnicodeDecodeError, Refused) as error:
            log.error(f"{path}: {error}; every call is denied", "policy")
            self._unreadable = f"{path}: {error}"

    def set(self, text: str) -> None:
        """Set the host's policy, which replaces the one set before.

        Raises Refused for a malformed policy, and then keeps the one set before.
        """
        self._set = parse(text)

    def check(self, service: str, method: str, request: object) -> None:
        """Raise Denied if any policy in force does not allow the request."""
        if self._unreadable:
            raise Denied(method, Policy(), "rpcs", method, (f"nothing: {self._unreadable}",))
        for policy in (*self._fixed, *([self._set] if self._set is not None else [])):
            check(policy, service, method, request)
