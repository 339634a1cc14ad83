"""The page of shim.toml, from `innkeeper.shim.settings` and the comments of the template."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from innkeeper.shim import settings
from manual.pages import HEAD, escape, table

INTRO = f"""# shim.toml

The configuration of [our containerd shim](../shim.md), `{settings.PATH}`: what a VM is
made of, and how large it is. `shim install` writes it. A runtime handler of containerd may name
another file in its option `ConfigPath`, and `INNKEEPER_SHIM_CONFIG` in containerd's environment
names the one for all other handlers.

An unknown key is an error, and so is a file that is not there.
"""
TEMPLATE = Path(settings.__file__).with_name("shim.toml")
KEY = re.compile(r"(?:# )?(\w+) = .")
KINDS = {Path: "an absolute path", int: "a number above 0", bool: "`true` or `false`", tuple[str, ...]: "a list of strings"}
"""Type of a field -> the values that the key takes. All others are strings."""


def page() -> str:
    """Return the text of the page. Raises KeyError if a key has no comment."""
    texts = dict(_described(TEMPLATE.read_text()))
    rows = [(f"`{one.name}`", _kind(one), _default(one), escape(texts[one.name])) for one in fields(settings.Settings)]
    return "\n".join([HEAD, INTRO, table(("key", "value", "default", "meaning"), rows)])


def _described(template: str) -> Iterator[tuple[str, str]]:
    """Yield each key of the template with the comment above it, which neighbouring keys share."""
    for block in template.split("\n\n"):
        lines = block.splitlines()
        keys = [match[1] for line in lines if (match := KEY.match(line))]
        text = " ".join(line.removeprefix("# ") for line in lines if not KEY.match(line))
        for key in keys:
            yield key, text


def _kind(one: "Field[Any]") -> str:
    return next((text for kind, text in KINDS.items() if one.type in (kind, kind | None)), "a string")


def _default(one: "Field[Any]") -> str:
    if one.default is MISSING:
        return "must be given"
    if one.default is None:
        return "none"
    if isinstance(one.default, tuple):
        return "`[]`"
    return f"`{str(one.default).lower() if isinstance(one.default, bool) else one.default}`"
