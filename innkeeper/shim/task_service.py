"""containerd's task service: a handler for each method. Versions 2 and 3 have the same messages."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from innkeeper import __version__
from innkeeper.shim import calls, events
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.pod import Pod
from innkeeper.wire.envelope import Request, Response
from innkeeper.wire.pb import empty_pb2

SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")


class TaskService:
    """The handlers.

    `ended` is set once containerd has asked for the end, and no container is left.
    """

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self.ended = False

    def handle(self, request: Request) -> Response:
        """Answer a call."""
        method = METHODS.get(request.method) if request.service in SERVICES else None
        if method is None:
            return calls.unknown(request)
        return calls.answer(request, method.request, lambda message: method.handler(self, message))

    def create(self, request: pb.CreateTaskRequest) -> pb.CreateTaskResponse:
        """Create a container, and boot its VM if it is the first."""
        return pb.CreateTaskResponse(pid=self._pod.create(request).pid)

    def start(self, request: pb.StartRequest) -> pb.StartResponse:
        """Start a process."""
        container = self._pod.container(request.id)
        container.start(request.exec_id)
        return pb.StartResponse(pid=container.pid)

    def state(self, request: pb.StateRequest) -> pb.StateResponse:
        """Return what is known of a process."""
        container = self._pod.container(request.id)
        process = container.process(request.exec_id)
        answer = pb.StateResponse(
            id=request.id,
            bundle=container.bundle,
            pid=container.pid,
            status=container.status(request.exec_id),
            stdin=process.stdio.stdin,
            stdout=process.stdio.stdout,
            stderr=process.stdio.stderr,
            terminal=process.stdio.terminal,
            exec_id=request.exec_id,
        )
        if process.exit is not None:
            answer.exit_status = process.exit.status
            answer.exited_at.CopyFrom(events.timestamp(process.exit.at))
        return answer

    def wait(self, request: pb.WaitRequest) -> pb.WaitResponse:
        """Wait until a process has ended."""
        end = self._pod.container(request.id).process(request.exec_id).wait()
        return pb.WaitResponse(exit_status=end.status, exited_at=events.timestamp(end.at))

    def connect(self, request: pb.ConnectRequest) -> pb.ConnectResponse:
        """Answer a containerd that has restarted, or creates a container in a sandbox (1.7)."""
        unborn = self._pod.is_sandbox and not self._pod.has(request.id)
        pid = 0 if unborn else self._pod.container(request.id).pid
        return pb.ConnectResponse(shim_pid=os.getpid(), task_pid=pid, version=__version__)

    def kill(self, request: pb.KillRequest) -> empty_pb2.Empty:
        """Send a signal."""
        self._pod.container(request.id).process(request.exec_id).kill(request.signal, request.all)
        return empty_pb2.Empty()

    def delete(self, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Remove a process that has ended, or a container."""
        container = self._pod.container(request.id)
        end = container.delete(request.exec_id)
        if not request.exec_id:
            self._pod.forget(request.id)
        return pb.DeleteResponse(pid=container.pid, exit_status=end.status, exited_at=events.timestamp(end.at))

    def shutdown(self, request: pb.ShutdownRequest) -> empty_pb2.Empty:
        """End this process, if no container is left. containerd asks after each removal."""
        self.ended = self._pod.is_empty()
        return empty_pb2.Empty()

    def exec(self, request: pb.ExecProcessRequest) -> empty_pb2.Empty:
        """Add a process to a container."""
        self._pod.container(request.id).add_process(request)
        return empty_pb2.Empty()

    def resize_pty(self, request: pb.ResizePtyRequest) -> empty_pb2.Empty:
        """Set the size of a terminal."""
        self._pod.container(request.id).process(request.exec_id).resize(request.height, request.width)
        return empty_pb2.Empty()

    def close_io(self, request: pb.CloseIORequest) -> empty_pb2.Empty:
        """End a standard input, once its writers have closed it.

        containerd's client may do so after this call.
        """
        if request.stdin:
            self._pod.container(request.id).process(request.exec_id).close_stdin()
        return empty_pb2.Empty()

    def pids(self, request: pb.PidsRequest) -> pb.PidsResponse:
        """Return the one process of the host that a container has."""
        return pb.PidsResponse(processes=[pb.ProcessInfo(pid=self._pod.container(request.id).pid)])

    def stats(self, request: pb.StatsRequest) -> pb.StatsResponse:
        """Return a container's statistics."""
        return pb.StatsResponse(stats=self._pod.container(request.id).stats())

    def update(self, request: pb.UpdateTaskRequest) -> empty_pb2.Empty:
        """Set other limits."""
        self._pod.container(request.id).update(json.loads(request.resources.value))
        return empty_pb2.Empty()

    def pause(self, request: pb.PauseRequest) -> empty_pb2.Empty:
        """Freeze a container."""
        self._pod.container(request.id).set_paused(True)
        return empty_pb2.Empty()

    def resume(self, request: pb.ResumeRequest) -> empty_pb2.Empty:
        """Let a paused container go on."""
        self._pod.container(request.id).set_paused(False)
        return empty_pb2.Empty()


class Method(NamedTuple):
    """A method: the class of its request, and its handler."""

    request: Any
    handler: Callable[[TaskService, Any], Any]


METHODS: Mapping[str, Method] = {
    "Create": Method(pb.CreateTaskRequest, TaskService.create),
    "Start": Method(pb.StartRequest, TaskService.start),
    "State": Method(pb.StateRequest, TaskService.state),
    "Wait": Method(pb.WaitRequest, TaskService.wait),
    "Connect": Method(pb.ConnectRequest, TaskService.connect),
    "Kill": Method(pb.KillRequest, TaskService.kill),
    "Delete": Method(pb.DeleteRequest, TaskService.delete),
    "Shutdown": Method(pb.ShutdownRequest, TaskService.shutdown),
    "Exec": Method(pb.ExecProcessRequest, TaskService.exec),
    "ResizePty": Method(pb.ResizePtyRequest, TaskService.resize_pty),
    "CloseIO": Method(pb.CloseIORequest, TaskService.close_io),
    "Pids": Method(pb.PidsRequest, TaskService.pids),
    "Stats": Method(pb.StatsRequest, TaskService.stats),
    "Update": Method(pb.UpdateTaskRequest, TaskService.update),
    "Pause": Method(pb.PauseRequest, TaskService.pause),
    "Resume": Method(pb.ResumeRequest, TaskService.resume),
}
"""Checkpoint is not among them: a VM is saved by other means, and containerd gets UNIMPLEMENTED."""
