"""Pods as documents, and what a running one is asked. All are of our class unless a test says otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.cluster import Cluster
from tests.shim.node import IMAGE

WEB = "mkdir /tmp/www; echo from the pod > /tmp/www/index.html; echo serving; exec httpd -f -p 8080 -h /tmp/www"
"""A script that serves HTTP on port 8080."""


def container(name: str, script: str, **more: object) -> dict[str, Any]:
    """Return a container of the busybox image that runs a script."""
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script], **more}


def document(name: str, *containers: dict[str, Any], runtime_class: str = "sandboxed", **spec: object) -> dict[str, Any]:
    """Return a pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"runtimeClassName": runtime_class, "terminationGracePeriodSeconds": 2, "containers": list(containers), **spec},
    }


@dataclass
class Pod:
    """A pod of the cluster."""

    cluster: Cluster
    name: str

    def get(self) -> Any:
        """Return what the API server has of it."""
        return self.cluster.get("pod", self.name)

    def status(self, container: str) -> Any:
        """Return the status of a container, of whatever kind it is."""
        status = self.get()["status"]
        every = [
            one for kind in ("", "init", "ephemeral") for one in status.get(f"{kind}ContainerStatuses" if kind else "containerStatuses", ())
        ]
        return next((one for one in every if one["name"] == container), {})

    def exec(self, *command: str, **options: Any) -> str:
        """Run a command in the first container."""
        return self.cluster.kubectl("exec", *(["-i"] if options else []), self.name, "--", *command, **options)

    @property
    def address(self) -> str:
        """Its address in the cluster's network."""
        return str(self.get()["status"]["podIP"])


@contextmanager
def running(cluster: Cluster, pod: dict[str, Any], condition: str = "condition=Ready") -> Iterator[Pod]:
    """Context manager: a pod that has come to a condition. It is deleted at the end."""
    name = pod["metadata"]["name"]
    cluster.apply(pod)
    try:
        if condition:
            cluster.wait(f"pod/{name}", condition)
        yield Pod(cluster, name)
    finally:
        cluster.kubectl("delete", "pod", name, "--ignore-not-found", "--wait", "--timeout=120s")


def config(kind: str, name: str, **data: str) -> dict[str, Any]:
    """Return a ConfigMap or a Secret."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "stringData" if kind == "Secret" else "data": data}
