"""Adapting a container's OCI specification, written for the host, to the guest."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.container.spec.reader import Document

NAMESPACES = ("pid", "mount", "cgroup")
"""Namespaces that every container gets, whether or not the host lists them. The host's list is
about its own namespaces."""


def of_the_guest(document: "Document", container_id: str) -> "Document":
    """Return the document with the guest's namespaces added.

    If the host names no cgroup, the container id is used as its name.
    """
    linux = dict(document.get("linux", {}))
    namespaces = list(linux.get("namespaces", ()))
    kinds = {namespace.get("type") for namespace in namespaces}
    linux["namespaces"] = namespaces + [{"type": kind} for kind in NAMESPACES if kind not in kinds]
    linux["cgroupsPath"] = linux.get("cgroupsPath") or container_id
    return {**document, "linux": linux}
