"""Handlers of the calls about containers and their processes."""

from typing import TYPE_CHECKING

from agent import loop
from agent.container.spec.document import parse_resources
from agent.errors import Refused
from agent.service import spec_from_proto
from innkeeper.wire.pb.agent_pb2 import StatsContainerResponse, WaitProcessResponse
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent.container.process import ContainerProcess
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2


async def create_container(sandbox: "Sandbox", request: "agent_pb2.CreateContainerRequest") -> Empty:
    """Create a container without starting its program. Raises AgentError."""
    _refuse(request, "string_user", "shared_mounts")
    document = spec_from_proto.spec_document(request.OCI)
    terminal = request.OCI.Process.Terminal
    return await _with_streams(sandbox, request, terminal, lambda: sandbox.containers.create(request, document))


async def start_container(sandbox: "Sandbox", request: "agent_pb2.StartContainerRequest") -> Empty:
    """Start the program of a container. Raises AgentError."""
    await sandbox.containers.start(request.container_id)
    return Empty()


async def exec_process(sandbox: "Sandbox", request: "agent_pb2.ExecProcessRequest") -> Empty:
    """Start an additional process in a container. Raises AgentError.

    A user given as a string (`string_user`) is resolved by the container's own files.
    """
    document = spec_from_proto.process_document(request.process)
    if request.HasField("string_user"):
        from agent.pod import users

        document = {**document, "user": await users.resolve(sandbox.containers.get(request.container_id), request.string_user)}
    terminal = request.process.Terminal
    return await _with_streams(sandbox, request, terminal, lambda: sandbox.containers.exec(request.container_id, request.exec_id, document))


async def _with_streams(
    sandbox: "Sandbox",
    request: "agent_pb2.CreateContainerRequest | agent_pb2.ExecProcessRequest",
    terminal: bool,
    create: "Callable[[], Awaitable[ContainerProcess]]",
) -> Empty:
    """Create a process, and connect it to the host's connections for its streams, if there are any.

    The connections are closed if the creation fails.
    """
    streams = await sandbox.claim_streams(request, terminal)
    try:
        process = await create()
    except BaseException:
        if streams is not None:
            streams.close()
        raise
    if streams is not None:
        streams.connect(process)
    return Empty()


async def signal_process(sandbox: "Sandbox", request: "agent_pb2.SignalProcessRequest") -> Empty:
    """Send a signal to a process, or to the whole container. Raises NotFound, Refused."""
    sandbox.containers.signal(request.container_id, request.exec_id, request.signal)
    return Empty()


async def wait_process(sandbox: "Sandbox", request: "agent_pb2.WaitProcessRequest") -> WaitProcessResponse:
    """Wait for a process and return its exit status. Raises NotFound."""
    return WaitProcessResponse(status=await sandbox.containers.wait(request.container_id, request.exec_id))


async def remove_container(sandbox: "Sandbox", request: "agent_pb2.RemoveContainerRequest") -> Empty:
    """Kill the processes of a container and release its resources.

    With a `timeout` in seconds the call ends with DEADLINE_EXCEEDED after that time. The removal
    goes on nevertheless. Raises AgentError.
    """
    with loop.timeout(request.timeout or None):
        await sandbox.containers.remove(request.container_id)
    return Empty()


async def update_container(sandbox: "Sandbox", request: "agent_pb2.UpdateContainerRequest") -> Empty:
    """Set new resource limits. Raises Refused, WrongState or StepFailed."""
    await sandbox.containers.get(request.container_id).update(parse_resources(spec_from_proto.resources_document(request.resources)))
    return Empty()


async def pause_container(sandbox: "Sandbox", request: "agent_pb2.PauseContainerRequest") -> Empty:
    """Freeze the processes of a container. Raises WrongState or StepFailed."""
    await sandbox.containers.get(request.container_id).pause()
    return Empty()


async def resume_container(sandbox: "Sandbox", request: "agent_pb2.ResumeContainerRequest") -> Empty:
    """Thaw the processes of a container. Raises WrongState or StepFailed."""
    await sandbox.containers.get(request.container_id).resume()
    return Empty()


async def stats_container(sandbox: "Sandbox", request: "agent_pb2.StatsContainerRequest") -> StatsContainerResponse:
    """Return the resource usage of a container. Raises WrongState."""
    from agent.service import stats

    return stats.response(sandbox.containers.get(request.container_id).stats())


def _refuse(request: "agent_pb2.CreateContainerRequest | agent_pb2.ExecProcessRequest", *fields: str) -> None:
    """Raise Refused if one of `fields`, which are not applied yet, is set."""
    given = {field.name for field, _ in request.ListFields()}
    for field in fields:
        if field in given:
            raise Refused(field, "not supported yet")


METHODS: "Handlers" = {
    "CreateContainer": create_container,
    "StartContainer": start_container,
    "ExecProcess": exec_process,
    "SignalProcess": signal_process,
    "WaitProcess": wait_process,
    "RemoveContainer": remove_container,
    "UpdateContainer": update_container,
    "PauseContainer": pause_container,
    "ResumeContainer": resume_container,
    "StatsContainer": stats_container,
}
