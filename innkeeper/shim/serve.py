"""The process that serves a container or a pod: everything is imported here, before the first call.

A lazy import weeks later would load the modules of another version, if the package is upgraded
meanwhile.
"""

import os
import socket
from pathlib import Path

from innkeeper.shim import logger
from innkeeper.shim.arguments import Arguments
from innkeeper.shim.events import Publisher
from innkeeper.shim.pod import Pod
from innkeeper.shim.sandbox_service import SERVICE as SANDBOX_SERVICE
from innkeeper.shim.sandbox_service import SandboxService
from innkeeper.shim.server import Server
from innkeeper.shim.task_service import TaskService
from innkeeper.wire.envelope import Request, Response

IDLE_SECONDS = 60.0
"""Seconds after which a shim ends that has no container."""


def run(listener: socket.socket, path: Path, arguments: Arguments) -> None:
    """Serve containerd until the last container is gone."""
    os.chdir("/")  # a bundle is removed while we live
    publisher = Publisher(os.environ.get("TTRPC_ADDRESS", ""), arguments.namespace)
    pod = Pod(arguments.namespace, publisher, path)
    tasks, sandboxes = TaskService(pod), SandboxService(pod)

    def handle(request: Request) -> Response:
        return (sandboxes if request.service == SANDBOX_SERVICE else tasks).handle(request)

    try:
        Server(listener, handle, lambda: tasks.ended or sandboxes.ended, pod.is_empty, IDLE_SECONDS).serve()
    finally:
        path.unlink(missing_ok=True)
        listener.close()
        pod.close()
        publisher.close()
        logger.finish()
