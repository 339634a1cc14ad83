"""Translating the host's specification of a container to the guest.

The modules for hooks and vendor devices are imported only when a request needs them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.config import Config
    from agent.container.spec.reader import Document
    from agent.device.watch import DeviceWatch
    from innkeeper.wire.pb.agent_pb2 import CreateContainerRequest

CONTAINER_TYPE = "io.katacontainers.pkg.oci.container_type"
CDI = "cdi.k8s.io/"
NAMESPACES = ("pid", "mount", "cgroup")
"""Namespaces that every container gets, whether or not the host lists them. The host's list is
about its own namespaces."""


class SpecTranslator:
    """The translator of one sandbox.

    It keeps the guest hooks, and each container's PCI addresses for processes added by exec.
    """

    def __init__(self, settings: "Config", devices: "DeviceWatch") -> None:
        self._settings = settings
        self._devices = devices
        self._hooks: dict[str, list[dict[str, Any]]] = {}
        self._addresses: dict[str, dict[str, str]] = {}

    def use_hooks(self, directory: str) -> None:
        """Add the hooks below a directory of the guest to every container created from now on.

        An empty name stands for no hooks.
        """
        self._hooks = {}
        if directory:
            from agent.pod.hooks import find

            self._hooks = find(directory)

    async def container(self, request: "CreateContainerRequest", document: "Document") -> "Document":
        """Return the translated document of a new container.

        Adapts namespaces, passed devices, vendor devices (CDI) and guest hooks. Raises AgentError
        and then keeps nothing about the container.
        """
        from agent.pod import devices

        document = _with_namespaces(document, request.container_id)
        found = await devices.find(request.devices, self._devices)
        document = devices.apply(document, found)
        if found.addresses:
            document = {**document, "process": _translated(document.get("process", {}), found.addresses)}
        document = await self._with_vendor_devices(document)
        if found.addresses:
            self._addresses[request.container_id] = found.addresses
        if self._hooks:
            from agent.pod.hooks import append

            document = append(document, self._hooks)
        return document

    def process(self, container_id: str, document: "Document") -> "Document":
        """Return the translated document of an exec'd process. Raises Refused."""
        addresses = self._addresses.get(container_id)
        return _translated(document, addresses) if addresses else document

    def forget(self, container_id: str) -> None:
        """Drop what is kept for a container that was removed or could not be created."""
        self._addresses.pop(container_id, None)

    async def _with_vendor_devices(self, document: "Document") -> "Document":
        """Return the document with CDI devices injected. A pod's sandbox container gets none."""
        annotations = document.get("annotations", {})
        by_environment = self._settings.visible_cdi_devices
        if annotations.get(CONTAINER_TYPE) == "pod_sandbox" or not (by_environment or any(key.startswith(CDI) for key in annotations)):
            return document
        from agent.pod import cdi

        names = cdi.wanted(annotations)
        if by_environment:
            listed = document.get("process", {}).get("env", ())
            names += [name for name in cdi.wanted_by_environment(listed) if name not in names]
        return await cdi.inject(document, names, self._settings.cdi_timeout)


def _with_namespaces(document: "Document", container_id: str) -> "Document":
    """Return the document with the guest's namespaces added.

    If the host names no cgroup, the container id is used as its name.
    """
    linux = dict(document.get("linux", {}))
    namespaces = list(linux.get("namespaces", ()))
    kinds = {namespace.get("type") for namespace in namespaces}
    linux["namespaces"] = namespaces + [{"type": kind} for kind in NAMESPACES if kind not in kinds]
    linux["cgroupsPath"] = linux.get("cgroupsPath") or container_id
    return {**document, "linux": linux}


def _translated(process: "Document", addresses: dict[str, str]) -> "Document":
    from agent.pod.devices import translate

    return {**process, "env": translate(process.get("env", ()), addresses)}
