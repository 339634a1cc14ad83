"""The JSON schema of `guest.toml`, made from the fields of `innkeeper.guest.config`.

Editors complete and check a guest.toml by it: `#:schema PATH` in its first line is what they look
for.
"""

from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

from innkeeper.guest.config import PARTS, Guest
from innkeeper.guest.config_checks import AGENT_SETTINGS, KINDS
from innkeeper.guest.config_file import INCLUDE

INCLUDE_TEXT = "Files to read before this one. What this file says comes before what they say."


def schema() -> dict[str, Any]:
    """Return the schema as a JSON document."""
    properties: dict[str, Any] = {INCLUDE: {"type": "array", "items": {"type": "string"}, "description": INCLUDE_TEXT}}
    for one in fields(Guest):
        if one.name == "files":
            properties[one.name] = {"type": "array", "items": _file()}
        else:
            properties[one.name] = _table(PARTS[one.name]) if one.name in PARTS else _property(Guest, one)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "guest.toml"}
    return {**head, "description": "A guest image of Innkeeper.", "type": "object", "additionalProperties": False, "properties": properties}


def _table(kind: type) -> dict[str, Any]:
    description = (kind.__doc__ or "").strip()
    properties = {one.name: _property(kind, one) for one in fields(kind)}
    return {"type": "object", "description": description, "additionalProperties": False, "properties": properties}


def _file() -> dict[str, Any]:
    table = _table(PARTS["files"])
    return {**table, "required": ["path"], "oneOf": [{"required": [kind]} for kind in KINDS]}


def _property(kind: type, one: "Field[Any]") -> dict[str, Any]:
    hint = get_type_hints(kind)[one.name]
    choices = one.metadata.get("choices")
    values: dict[str, Any] = {"enum": list(choices)} if choices else {"type": "string"}
    if hint is bool:
        values = {"type": "boolean"}
    elif hint is int:
        values = {"type": "integer", "minimum": 1}
    elif hint is not str and one.name == "settings":
        plain = {"type": ["string", "integer", "boolean"]}
        values = {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(AGENT_SETTINGS, plain)}
    elif hint is not str:
        values = {"type": "array", "items": values}
    default = {} if one.default is MISSING else {"default": list(one.default) if isinstance(one.default, tuple) else one.default}
    return {**values, "description": one.metadata["text"], **default}
