"""What a container has left for whoever asks why it ended."""

import os
import stat
from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.linux.openat2 import openat2
from agent.service.handler import Handlers
from agent.storage.mountpoint import STRAIGHT
from agent.worker import run_in_worker
from innkeeper.wire.pb.agent_pb2 import GetDiagnosticDataResponse

if TYPE_CHECKING:
    from agent.container.container import Container
    from agent.sandbox import Sandbox
    from innkeeper.wire.pb import agent_pb2

TERMINATION_LOG = "termination_log"
PATH_ANNOTATION = "io.kubernetes.container.terminationMessagePath"
DEFAULT_PATH = "/dev/termination-log"
MAX_BYTES = 12 * 1024
"""The kubelet keeps 4 kB of a container's message, 12 kB of a pod's."""


async def get_diagnostic_data(sandbox: "Sandbox", request: "agent_pb2.GetDiagnosticDataRequest") -> GetDiagnosticDataResponse:
    """The text of a container's termination log: the file that is bound at the path which Kubernetes names, also after its end.

    No such file, or none of it written, is an empty text.
    """
    if request.log_type != TERMINATION_LOG:
        raise Refused("log_type", f"{request.log_type[:64]!r} is not {TERMINATION_LOG!r}")
    container = sandbox.container(request.container_id)
    text = await run_in_worker(lambda: _termination_log(container), "termination log")
    return GetDiagnosticDataResponse(data=text.decode(errors="replace"))


def _termination_log(container: "Container") -> bytes:
    """In a worker: the file may be on a share."""
    wanted = os.path.normpath(container.spec.annotations.get(PATH_ANNOTATION) or DEFAULT_PATH)
    sources = [mount.source for mount in container.spec.mounts if mount.source and os.path.normpath(mount.destination) == wanted]
    if not sources:
        return b""
    try:
        fd = openat2(-100, sources[-1], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, STRAIGHT)
    except OSError:
        return b""  # gone, or no file any more: the container may have replaced it by what it likes
    try:
        return os.read(fd, MAX_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


METHODS: Handlers = {"GetDiagnosticData": get_diagnostic_data}
