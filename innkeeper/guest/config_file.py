"""Read `guest.toml`: several files are layered, and everything in them is checked by name.

A file may name others to include, which are read before it. Of two files the later one wins: tables
are merged key by key, lists are appended, other values are replaced. Paths are relative to the file
that names them.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

from innkeeper.errors import InnkeeperError
from innkeeper.guest.config import NOT_YET, PARTS, Guest, check
from innkeeper.guest.config_checks import check_file, check_settings

INCLUDE = "include"
"""The key with the files to read before."""


def read(paths: Sequence[Path]) -> Guest:
    """Return the guest that the files describe, later ones over earlier ones.

    Raises InnkeeperError.
    """
    document: dict[str, Any] = {}
    for path in paths:
        document = _layer(document, _load(path.absolute(), ()))
    return check(_guest(document))


def _load(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """Return the checked content of a file and of those that it includes, with absolute paths."""
    if path.resolve() in including:
        raise InnkeeperError(f"{path}: it includes itself, by {' and '.join(str(one) for one in including)}")
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InnkeeperError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from None
    included = given.pop(INCLUDE, [])
    if not isinstance(included, list) or not all(isinstance(one, str) for one in included):
        raise InnkeeperError(f"{path}: {INCLUDE}: not a list of paths")
    document: dict[str, Any] = {}
    for one in included:
        document = _layer(document, _load(path.parent / one, (*including, path.resolve())))
    return _layer(document, _checked(given, path))


def _layer(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            merged[key] = _layer(known, value)
        elif isinstance(value, list) and isinstance(known, list) and key != "outputs":
            merged[key] = [*known, *value]
        else:
            merged[key] = value
    return merged


def _checked(given: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a file's content with its types checked and its paths absolute."""
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if key == "files":
            checked[key] = [_table(PARTS[key], entry, f"{key}[{number}]", path) for number, entry in enumerate(_list(value, key, path))]
        elif key in PARTS:
            checked[key] = _table(PARTS[key], value, key, path)
        else:
            checked |= _table(Guest, {key: value}, "", path)
    return checked


def _list(value: Any, key: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise InnkeeperError(f"{path}: {key} is an array of tables", hint=f"write [[{key}]]")
    return value


def _table(kind: type, value: Any, name: str, path: Path) -> dict[str, Any]:
    """Return the checked content of the table `name`, with the fields of the dataclass `kind`."""
    if not isinstance(value, dict):
        raise InnkeeperError(f"{path}: {name} is a table", hint=f"write [{name}]")
    hints = get_type_hints(kind)
    known = {one.name: one for one in fields(kind)}
    checked: dict[str, Any] = {}
    for key, content in value.items():
        full = f"{name}.{key}" if name else key
        if key not in known:
            raise InnkeeperError(f"{path}: unknown key {full}", hint=_nearest(key, name, known))
        _check_type(hints[key], content, full, path)
        rules = known[key].metadata
        _check_choice(content, rules.get("choices"), full, key, path)
        checked[key] = _resolved(content, rules["is_file"], path) if "is_file" in rules else content
        if full == "agent.settings":
            check_settings(content, str(path))
    if name.startswith("files["):
        check_file(checked, f"{path}: {name}")
    return checked


def _nearest(key: str, table: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown key: the nearest known one, also of other tables."""
    here = [*known, *((INCLUDE, *PARTS) if not table else ())]
    if close := difflib.get_close_matches(key, here, 1):
        return f"did you mean {f'{table}.' if table else ''}{close[0]}?"
    everywhere = {one.name: name for name, kind in PARTS.items() for one in fields(kind)} | {one.name: "" for one in fields(Guest)}
    if close := difflib.get_close_matches(key, everywhere, 1):
        return f"did you mean {f'{everywhere[close[0]]}.' if everywhere[close[0]] else ''}{close[0]}?"
    return f"known keys are {', '.join(sorted(here))}"


_TYPES: Mapping[Any, tuple[type, str]] = {
    str: (str, "a string"),
    int: (int, "a whole number"),
    bool: (bool, "true or false"),
    tuple[str, ...]: (list, "a list of strings"),
    dict[str, Any]: (dict, "a table"),
}


def _check_type(hint: Any, value: Any, name: str, path: Path) -> None:
    wanted, words = _TYPES[hint]
    right = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
    if right and wanted is list:
        right = all(isinstance(item, str) for item in value)
    if not right:
        raise InnkeeperError(f"{path}: {name} = {value!r}: not {words}")


def _check_choice(value: Any, choices: tuple[str, ...] | None, name: str, key: str, path: Path) -> None:
    if choices is None:
        return
    for item in value if isinstance(value, list) else [value]:
        if reason := NOT_YET.get(key, {}).get(item):
            raise InnkeeperError(f"{path}: {name} = {item!r}: {reason}", hint=f"known: {', '.join(choices)}")
        if item not in choices:
            close = difflib.get_close_matches(item, choices, 1)
            raise InnkeeperError(
                f"{path}: {name} = {item!r}: unknown", hint=f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
            )


def _resolved(value: Any, words: tuple[str, ...], path: Path) -> Any:
    """Return paths as absolute ones.

    `words` are values that are no path. Raises InnkeeperError for what is not there.
    """
    if isinstance(value, list):
        return [_resolved(item, words, path) for item in value]
    if value in words or not value:
        return value
    found = path.parent / value
    if not found.exists():
        raise InnkeeperError(f"{path}: no such file or folder: {found}", hint=f"or one of {', '.join(words)}" if words else None)
    return str(found)


def _guest(document: Mapping[str, Any]) -> Guest:
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key == "files":
            values[key] = tuple(_made(PARTS[key], entry) for entry in value)
        else:
            values[key] = _made(PARTS[key], value) if key in PARTS else _frozen(value)
    return Guest(**values)


def _made(kind: type, value: Mapping[str, Any]) -> Any:
    return kind(**{key: _frozen(content) for key, content in value.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def as_toml(guest: Guest) -> str:
    """Return the whole configuration, defaults included, as a guest.toml."""
    lines = [f"{key} = {_value(value)}" for key, value in vars(guest).items() if key not in PARTS]
    for name in PARTS:
        part = getattr(guest, name)
        for entry in part if name == "files" else [part]:
            lines += ["", f"[[{name}]]" if name == "files" else f"[{name}]"]
            lines += [f"{key} = {_value(value)}" for key, value in vars(entry).items() if name != "files" or value != _default(entry, key)]
    return "\n".join(lines) + "\n"


def _default(entry: Any, name: str) -> Any:
    return next(one.default for one in fields(entry) if one.name == name and one.default is not MISSING)


def _value(value: Any) -> str:
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_value(item)}' for key, item in value.items())} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
