"""The state of a container as the specification writes it, for hooks, for seccomp listeners and for whoever asks."""

from collections.abc import Mapping
from dataclasses import dataclass

VERSION = "1.3.0"
"""Of the specification that the document complies with."""


@dataclass(frozen=True, slots=True)
class State:
    """A container's unchanging part of the document; status and pid are of the moment."""

    id: str
    bundle: str
    annotations: Mapping[str, str]

    def document(self, status: str, pid: int) -> dict[str, object]:
        """The document. `pid` as the reader sees the process, 0 for none."""
        return {
            "ociVersion": VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": dict(self.annotations),
        }

    def encode(self, status: str, pid: int) -> bytes:
        """The document as JSON."""
        import json  # for hooks alone, and 250 kB of PID 1

        return json.dumps(self.document(status, pid)).encode()

    def halves(self, status: str) -> tuple[bytes, bytes]:
        """The document as JSON without its pid: what comes before it and after it. For a child, which alone knows its number inside."""
        text = self.encode(status, 0)
        before, _, after = text.partition(b'"pid": 0')
        return before + b'"pid": ', after
