"""The page of guest.toml and its JSON schema, from the fields of `innkeeper.guest.config`."""

import json
from dataclasses import MISSING, Field, fields
from typing import Any

from innkeeper.guest import config
from innkeeper.guest.config_schema import INCLUDE_TEXT, schema
from manual.pages import HEAD, escape, table

INTRO = """# guest.toml

A guest.toml describes a guest image: `build -f guest.toml` makes it, `run --guest guest.toml` boots
it. Without a file, or with an empty one, it is the default image. [How to configure a
guest](../howto/configure-guest.md) shows examples.

* Several files are layered: `-f base.toml -f site.toml`, or `include` in a file. The later file
  wins. Tables are merged key by key, lists are appended (`outputs` is replaced), other values are
  replaced.
* Paths are relative to the file that names them.
* An unknown key is an error, and so is a value that cannot be applied.
* [guest.schema.json](guest.schema.json) is the JSON schema, for editors.
"""


def schema_text() -> str:
    """Return the text of the schema file."""
    return json.dumps(schema(), indent=2) + "\n"


def page() -> str:
    """Return the text of the page."""
    top = [("`include`", "`[]`", escape(INCLUDE_TEXT)), *_rows(config.Guest)]
    parts = [HEAD, INTRO, "## At the top\n", _table(top)]
    parts += ["Files of each output; `manifest.json` is always written:\n", table(("output", "files"), _outputs())]
    for name, kind in config.PARTS.items():
        heading = f"## `[[{name}]]`\n" if name == "files" else f"## `[{name}]`\n"
        parts += [heading, f"{escape((kind.__doc__ or '').strip())}\n", _table(_rows(kind))]
    return "\n".join(parts)


def _outputs() -> list[tuple[str, str]]:
    return [(f"`{name}`", text) for name, text in config.OUTPUTS.items()]


def _table(rows: list[tuple[str, str, str]]) -> str:
    return table(("key", "default", "meaning"), rows)


def _rows(kind: type) -> list[tuple[str, str, str]]:
    return [(f"`{one.name}`", _default(one.default), _text(one)) for one in fields(kind) if "text" in one.metadata]


def _text(one: "Field[Any]") -> str:
    choices = one.metadata.get("choices")
    known = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
    return f"{one.metadata['text']}{known}"


def _default(value: object) -> str:
    if value is MISSING:
        return "`{}`"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"
