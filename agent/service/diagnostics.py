"""Handler of GetDiagnosticData: the termination log, in which a container says why it ended."""

import os
from typing import TYPE_CHECKING

from agent.errors import Refused
from agent.linux.libc import AT_FDCWD
from agent.linux.openat2 import NO_LINKS, read_regular_file
from agent.worker import run_in_worker
from innkeeper.wire.pb.agent_pb2 import GetDiagnosticDataResponse

if TYPE_CHECKING:
    from agent.container.container import Container
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2

TERMINATION_LOG = "termination_log"
PATH_ANNOTATION = "io.kubernetes.container.terminationMessagePath"
"""Annotation in which Kubernetes names the path inside the container."""
DEFAULT_PATH = "/dev/termination-log"
MAX_BYTES = 12 * 1024
"""Most bytes that are read.

The kubelet keeps 4 kB of the message of a container, and 12 kB of that of a pod.
"""


async def get_diagnostic_data(sandbox: "Sandbox", request: "agent_pb2.GetDiagnosticDataRequest") -> GetDiagnosticDataResponse:
    """Return the text of a container's termination log, also after the container has ended.

    The log is the file that is bind-mounted at the path that Kubernetes names. The text is empty
    if there is no such file or nothing was written. Raises Refused for another type of log.
    """
    if request.log_type != TERMINATION_LOG:
        raise Refused("log_type", f"{request.log_type[:64]!r} is not {TERMINATION_LOG!r}")
    container = sandbox.containers.get(request.container_id)
    text = await run_in_worker(lambda: _termination_log(container), "termination log")
    return GetDiagnosticDataResponse(data=text.decode(errors="replace"))


def _termination_log(container: "Container") -> bytes:
    """Return the bytes of the log. Runs in a worker, because the file may be on a share.

    The container can replace the file, for example by a symbolic link, a fifo or a device. So the
    path is resolved without following links, the open does not wait, and only a regular file is
    read.
    """
    wanted = os.path.normpath(container.spec.annotations.get(PATH_ANNOTATION) or DEFAULT_PATH)
    sources = [mount.source for mount in container.spec.mounts if mount.source and os.path.normpath(mount.destination) == wanted]
    if not sources:
        return b""
    return read_regular_file(AT_FDCWD, sources[-1], MAX_BYTES, NO_LINKS)


METHODS: "Handlers" = {"GetDiagnosticData": get_diagnostic_data}
