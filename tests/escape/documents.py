"""The attackers' containers: docker's default profile, as root, as root of a user namespace, and as an ordinary user."""

from collections.abc import Mapping, Sequence
from typing import Any

from innkeeper.image import defaults
from innkeeper.image.seccomp import load_profile

Document = dict[str, Any]

ROOT, USERNS, USER, EXEC = "root", "userns", "user", "exec"
IDENTITIES = (ROOT, USERNS, USER, EXEC)
"""`exec`: root as well, but by a second process in a running container."""
PROGRAM = "/payload"
ENVIRONMENT = ["PATH=/bin"]
MAPPED, MAPPED_COUNT = 100_000, 65_536
"""Where a user namespace's ids are outside, and how many."""
SHM = 64 << 20


def document(root: str, *args: str, who: str = ROOT) -> Document:
    """A container of the default profile, seccomp filter included, that runs the payload with `args`."""
    capabilities = list(defaults.CAPABILITIES)
    doc: Document = {
        "ociVersion": "1.2.0",
        "root": {"path": root},
        "hostname": "attacker",
        "process": {
            "args": [PROGRAM, *args],
            "env": list(ENVIRONMENT),
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {kind: list(capabilities) for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "mounts": [*defaults.mounts(SHM), defaults.mount("/tmp", "tmpfs", "tmpfs", "nosuid", "mode=1777")],
        "linux": {
            "namespaces": [{"type": kind} for kind in (*defaults.NAMESPACES, "network")],
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
            "seccomp": load_profile(None, capabilities),
        },
    }
    if who == USERNS:
        map_users(doc)
    if who == USER:
        doc["process"]["user"] = {"uid": 1000, "gid": 1000}
        doc["process"]["capabilities"] |= {"effective": [], "permitted": []}
    return doc


def map_users(doc: Document) -> Document:
    """Give the container a user namespace."""
    mapping = {"containerID": 0, "hostID": MAPPED, "size": MAPPED_COUNT}
    doc["linux"]["namespaces"].append({"type": "user"})
    doc["linux"] |= {"uidMappings": [dict(mapping)], "gidMappings": [dict(mapping)]}
    return doc


def unfiltered(doc: Document) -> Document:
    """The same without a seccomp filter: what else holds."""
    doc["linux"].pop("seccomp", None)
    return doc


def with_capabilities(doc: Document, names: Sequence[str]) -> Document:
    """The same with these capabilities in place of the default set, and no filter."""
    doc["process"]["capabilities"] = {kind: list(names) for kind in ("bounding", "effective", "permitted")}
    return unfiltered(doc)


def without_mount(doc: Document, *destinations: str) -> Document:
    """The same without the mounts at and below some places."""
    doc["mounts"] = [
        mount
        for mount in doc["mounts"]
        if not any(mount["destination"] == place or mount["destination"].startswith(f"{place}/") for place in destinations)
    ]
    return doc


def bind(source: str, destination: str, *options: str) -> Mapping[str, object]:
    """A bind mount's entry."""
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}
