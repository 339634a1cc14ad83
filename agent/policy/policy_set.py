"""The policies in force: those of the image, which nobody changes, and one that the host sets. All must allow a request."""

from agent import log
from agent.errors import Refused
from agent.policy.check import Denied, check
from agent.policy.parser import Policy, parse


class Book:
    """Policies by where they come from."""

    def __init__(self) -> None:
        self._fixed: list[Policy] = []
        self._set: Policy | None = None
        self._unreadable = ""

    def read(self, path: str) -> None:
        """A policy of the image's. One that cannot be understood allows nothing: what it should have said is not known."""
        try:
            with open(path, encoding="utf-8") as file:
                self._fixed.append(parse(file.read()))
        except (OSError, UnicodeDecodeError, Refused) as error:
            log.error(f"{path}: {error}; every call is denied", "policy")
            self._unreadable = f"{path}: {error}"

    def set(self, text: str) -> None:
        """The host's, in the place of the one before. Raises Refused; the one before stays in force then."""
        self._set = parse(text)

    def check(self, service: str, method: str, request: object) -> None:
        """Raises Denied."""
        if self._unreadable:
            raise Denied(method, Policy(), "rpcs", method, (f"nothing: {self._unreadable}",))
        for policy in (*self._fixed, *([self._set] if self._set is not None else [])):
            check(policy, service, method, request)
