"""What dataclasses asks of inspect, without the parser, disassembler and tokenizer that the original imports: 2 MB, a tenth of loading.

The agent inspects nothing; a use of anything else fails when the frozen agent is loaded, which every test of the guest does.
"""

from typing import Any


def signature(obj: Any) -> str:
    """dataclasses makes a docstring of it where there is none, and takes this error for "unknown"."""
    raise ValueError("no signatures here")


def get_annotations(obj: Any) -> dict[str, Any]:
    """The annotations of a class itself."""
    annotations: dict[str, Any] = obj.__dict__.get("__annotations__", {})  # noqa: RUF063 - this is that function
    return annotations
