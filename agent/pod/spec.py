"""The specification of a container of the host's as one of the guest's."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.container.spec.reader import Document

NAMESPACES = ("pid", "mount", "cgroup")
"""Every container has them, whether or not the host, which means its own kind of them, lists them."""


def of_the_guest(document: "Document", container_id: str) -> "Document":
    """With the guest's namespaces, and a cgroup named like the container where the host names none."""
    linux = dict(document.get("linux", {}))
    namespaces = list(linux.get("namespaces", ()))
    kinds = {namespace.get("type") for namespace in namespaces}
    linux["namespaces"] = namespaces + [{"type": kind} for kind in NAMESPACES if kind not in kinds]
    linux["cgroupsPath"] = linux.get("cgroupsPath") or container_id
    return {**document, "linux": linux}
