"""Small documents of the runtime specification, and how to change one field of them by its path."""

import copy
import re
from typing import Any

from agent.container.spec.document import Spec, parse_spec

SMALL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "/root/fs"},
    "process": {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"]},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The small document with one field set; `path` as in a refusal (`linux.devices[0].path`), lists grow as needed."""
    document = copy.deepcopy(SMALL)
    node: Any = document
    keys = [int(key[1:-1]) if key.startswith("[") else key for key in re.findall(r"\[\d+\]|[^.\[\]]+", path)]
    for index, key in enumerate(keys[:-1]):
        empty: Any = [] if isinstance(keys[index + 1], int) else {}
        node = _enter(node, key, empty)
    last = keys[-1]
    if isinstance(last, int):
        node.extend([None] * (last + 1 - len(node)))
    node[last] = value
    return document


def _enter(node: Any, key: int | str, empty: Any) -> Any:
    if isinstance(key, int):
        node.extend([{} for _ in range(key + 1 - len(node))])
        return node[key]
    return node.setdefault(key, empty)


def parsed(path: str, value: object) -> Spec:
    """`changed`, parsed."""
    return parse_spec(changed(path, value))
