"""Documents in which many steps have something to do: one for each way in which a container's life differs for the agent."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.root.container_helpers import Box, Document, with_users

KINDS = ("pipes", "terminal", "users", "hooks")
JOINED = ("joined user", "joined all")
"""Kinds of documents that join namespaces, of users and of nearly every kind."""
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def document(box: Box, source: Path, kind: str = "pipes") -> Document:
    """Return a document of a kind, with a volume at `source`."""
    doc = box.document("sh", "-c", "exit 0")
    if kind == "users":
        return with_users(doc)
    if kind in JOINED:
        return doc
    if kind == "hooks":
        hook = {"path": "/bin/sh", "args": ["sh", "-c", "exit 0"], "timeout": 60}
        doc["hooks"] = {name: [hook] for name in HOOKS}
    doc["process"]["terminal"] = kind == "terminal"
    doc["mounts"].append({"destination": "/home", "type": "bind", "source": str(source), "options": ["rbind", "ro"]})
    doc["linux"]["cgroupsPath"] = "/deep/er"
    doc["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    doc["linux"]["devices"] = [{"path": "/dev/one/more", "type": "c", "major": 1, "minor": 3}]
    return doc


async def beside(box: Box, doc: Document, kind: str, use: Callable[[Document], Awaitable[None]]) -> None:
    """Use a document. If its kind joins namespaces, they are those of a container that lasts as long as the use.

    The root of `box` belongs to its users then (the fixture `mapped`).
    """
    if kind not in JOINED:
        await use(doc)
        return
    holder = await Box(box.root, box.host, "holder").create(with_users(box.document("sleep", "1000")))
    names = {"user": "user"}
    if kind == "joined all":
        names |= {"network": "net", "uts": "uts", "ipc": "ipc", "pid": "pid", "cgroup": "cgroup"}
        doc["hostname"] = ""
    others = [entry for entry in doc["linux"]["namespaces"] if entry["type"] not in names]
    doc["linux"]["namespaces"] = others + [{"type": type_, "path": f"/proc/{holder.init.pid}/ns/{name}"} for type_, name in names.items()]
    try:
        await use(doc)
    finally:
        await holder.remove()
