"""containerd's sandbox service: a pod without a pause container (`sandboxer = "shim"`).

There is one sandbox in a shim. Its containers come by the task service, as those of other pods.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from innkeeper.shim import calls, events
from innkeeper.shim.errors import not_found
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.pod import Pod
from innkeeper.shim.process import LOST
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.pb import empty_pb2

SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"


class SandboxService:
    """The handlers. `ended` is set once containerd has shut the sandbox down."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._asked: pb.CreateSandboxRequest | None = None
        self._created_at = 0
        self.ended = False

    def handle(self, request: Request) -> Response:
        """Answer a call."""
        method = METHODS.get(request.method)
        if method is None:
            return calls.unknown(request)
        message, handler = method
        return calls.answer(request, message, lambda given: handler(self, given))

    def create(self, request: pb.CreateSandboxRequest) -> empty_pb2.Empty:
        """Keep what the pod is to be. It starts with the next call."""
        self._pod.check_sandbox(request)
        self._asked = request
        return empty_pb2.Empty()

    def start(self, request: pb.SandboxRequest) -> pb.StartSandboxResponse:
        """Boot the pod's VM."""
        if self._asked is None or self._asked.sandbox_id != request.sandbox_id:
            raise not_found(f"sandbox {request.sandbox_id} not found")
        container = self._pod.create_sandbox(self._asked)
        self._created_at = time.time_ns()
        return pb.StartSandboxResponse(pid=container.pid, created_at=events.timestamp(self._created_at))

    def platform(self, request: pb.SandboxRequest) -> pb.PlatformResponse:
        """Return what the containers of the pod run on."""
        return pb.PlatformResponse(platform=pb.Platform(os="linux", architecture="amd64"))

    def wait(self, request: pb.SandboxRequest) -> pb.WaitSandboxResponse:
        """Wait until the pod's VM has ended."""
        end = self._pod.container(request.sandbox_id).init.wait()
        return pb.WaitSandboxResponse(exit_status=end.status, exited_at=events.timestamp(end.at))

    def status(self, request: pb.SandboxRequest) -> pb.SandboxStatusResponse:
        """Return whether the pod's VM runs."""
        container = self._pod.container(request.sandbox_id)
        end = container.init.exit
        answer = pb.SandboxStatusResponse(
            sandbox_id=request.sandbox_id,
            pid=container.pid,
            state=READY if end is None else NOT_READY,
            created_at=events.timestamp(self._created_at),
        )
        if end is not None:
            answer.exited_at.CopyFrom(events.timestamp(end.at))
        return answer

    def ping(self, request: pb.SandboxRequest) -> empty_pb2.Empty:
        """Answer while the pod's VM runs."""
        self._pod.container(request.sandbox_id).init.check_alive()
        return empty_pb2.Empty()

    def stop(self, request: pb.SandboxRequest) -> empty_pb2.Empty:
        """End the pod's VM, and with it all containers."""
        container = self._pod.container(request.sandbox_id)
        container.init.ended(LOST)
        container.machine.end()
        return empty_pb2.Empty()

    def shutdown(self, request: pb.SandboxRequest) -> empty_pb2.Empty:
        """Remove all that the pod has, and end this process.

        The sandbox may never have been started.
        """
        if self._pod.has(request.sandbox_id):
            self._pod.container(request.sandbox_id).remove()
            self._pod.forget(request.sandbox_id)
        self.ended = True
        return empty_pb2.Empty()


METHODS: Mapping[str, tuple[Any, Callable[[SandboxService, Any], Any]]] = {
    "CreateSandbox": (pb.CreateSandboxRequest, SandboxService.create),
    "StartSandbox": (pb.SandboxRequest, SandboxService.start),
    "Platform": (pb.SandboxRequest, SandboxService.platform),
    "StopSandbox": (pb.SandboxRequest, SandboxService.stop),
    "WaitSandbox": (pb.SandboxRequest, SandboxService.wait),
    "SandboxStatus": (pb.SandboxRequest, SandboxService.status),
    "PingSandbox": (pb.SandboxRequest, SandboxService.ping),
    "ShutdownSandbox": (pb.SandboxRequest, SandboxService.shutdown),
}
"""SandboxMetrics is not among them: containerd takes UNIMPLEMENTED.

UpdateSandbox neither: a VM's size is set when it boots.
"""
