"""Hooks of the guest's own: programs below the directory that the host names, put behind those of each specification."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.container.spec.reader import Document

KINDS = ("prestart", "poststart", "poststop")


def find(directory: str) -> dict[str, list[dict[str, Any]]]:
    """Kind -> hooks, in the order of their names. What is no executable file is passed over; a directory that is missing holds none."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        try:
            names = sorted(os.listdir(f"{directory}/{kind}"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        paths = [(name, os.path.abspath(f"{directory}/{kind}/{name}")) for name in names]
        programs = [(name, path) for name, path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
        if programs:
            found[kind] = [{"path": path, "args": [name, kind]} for name, path in programs]
    return found


def append(document: "Document", hooks: dict[str, list[dict[str, Any]]]) -> "Document":
    """The document with the guest's hooks behind its own."""
    if not hooks:
        return document
    listed = dict(document.get("hooks", {}))
    for kind, added in hooks.items():
        listed[kind] = [*listed.get(kind, ()), *added]
    return {**document, "hooks": listed}
