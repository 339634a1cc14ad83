"""Guest hooks: programs of the guest image that run in addition to each specification's hooks.

They are in the directory that the host names in CreateSandbox.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.container.spec.reader import Document

KINDS = ("prestart", "poststart", "poststop")


def find(directory: str) -> dict[str, list[dict[str, Any]]]:
    """Return kind of hook -> hooks, sorted by name.

    Skips anything but executable files. A missing directory is the same as an empty one.
    """
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
    """Return the document with the guest hooks after its own."""
    if not hooks:
        return document
    listed = dict(document.get("hooks", {}))
    for kind, added in hooks.items():
        listed[kind] = [*listed.get(kind, ()), *added]
    return {**document, "hooks": listed}
