"""The state document of the specification, for hooks, seccomp listeners and callers."""

from collections.abc import Mapping
from dataclasses import dataclass

OCI_VERSION = "1.3.0"
"""Version of the OCI runtime specification that the document complies with."""


@dataclass(frozen=True, slots=True)
class State:
    """The constant part of a container's state document. Status and pid change."""

    id: str
    bundle: str
    annotations: Mapping[str, str]

    def document(self, status: str, pid: int) -> dict[str, object]:
        """Return the document. `pid` is the process as the reader sees it, 0 for none."""
        return {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": dict(self.annotations),
        }

    def encode(self, status: str, pid: int) -> bytes:
        """Return the document as JSON."""
        import json  # only for hooks; costs PID 1 250 kB

        return json.dumps(self.document(status, pid)).encode()

    def halves(self, status: str) -> tuple[bytes, bytes]:
        """Return the document as JSON in two parts, before and after the pid.

        For a child, which alone knows its pid inside its pid namespace.
        """
        text = self.encode(status, 0)
        before, _, after = text.partition(b'"pid": 0')
        return before + b'"pid": ', after
