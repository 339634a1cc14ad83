"""The agent's RPCs as typed methods."""

from collections.abc import Sequence

from innkeeper.client.client import Client
from innkeeper.wire.pb import agent_pb2, empty_pb2, guest_pb2, health_pb2, oci_pb2, types_pb2

SHORT = 60.0
"""Timeout in seconds for calls that do not wait for a process. Emulated guests are slow."""
PADDING = 3 << 20
"""Bytes that overwrite the buffers of a virtio-serial port several times."""
_AGENT = "grpc.AgentService"
_GUEST = "innkeeper.v1.Guest"


class Agent:
    """A typed method for each RPC. All of them raise RpcError."""

    def __init__(self, client: Client, timeout: float = SHORT) -> None:
        self.client = client
        self.timeout = timeout

    def _empty(self, method: str, request: object) -> None:
        self.client.call(_AGENT, method, request, empty_pb2.Empty, self.timeout)

    def check(self, timeout: float | None = None) -> int:
        """Return the serving status. 1 is SERVING."""
        response = self.client.call(
            "grpc.Health", "Check", health_pb2.CheckRequest(), health_pb2.HealthCheckResponse, timeout or self.timeout
        )
        return int(response.status)

    def version(self) -> health_pb2.VersionCheckResponse:
        return self.client.call("grpc.Health", "Version", health_pb2.CheckRequest(), health_pb2.VersionCheckResponse, self.timeout)

    def create_sandbox(self, request: agent_pb2.CreateSandboxRequest) -> None:
        self._empty("CreateSandbox", request)

    def destroy_sandbox(self) -> None:
        self._empty("DestroySandbox", agent_pb2.DestroySandboxRequest())

    def create_container(self, request: agent_pb2.CreateContainerRequest) -> None:
        self._empty("CreateContainer", request)

    def start_container(self, container_id: str) -> None:
        self._empty("StartContainer", agent_pb2.StartContainerRequest(container_id=container_id))

    def remove_container(self, container_id: str, seconds: int = 0) -> None:
        self._empty("RemoveContainer", agent_pb2.RemoveContainerRequest(container_id=container_id, timeout=seconds))

    def exec_process(self, container_id: str, exec_id: str, process: oci_pb2.Process, user: str = "") -> None:
        """Run another process in a container.

        `user` ("USER[:GROUP]") replaces the user in `process`. Names are looked up in the
        container.
        """
        request = agent_pb2.ExecProcessRequest(container_id=container_id, exec_id=exec_id, process=process)
        if user:
            uid, _, gid = user.partition(":")
            request.string_user.uid, request.string_user.gid = uid, gid
        self._empty("ExecProcess", request)

    def signal_process(self, container_id: str, exec_id: str, signum: int) -> None:
        """Send a signal to a process.

        An empty `exec_id` means the container's init process, or with SIGKILL the whole container.
        """
        self._empty("SignalProcess", agent_pb2.SignalProcessRequest(container_id=container_id, exec_id=exec_id, signal=signum))

    def wait_process(self, container_id: str, exec_id: str, timeout: float | None = None) -> int:
        """Wait for a process and return its exit status, 0-255, or 128+n if signal n ended it.

        The agent forgets the process with this answer.
        """
        request = agent_pb2.WaitProcessRequest(container_id=container_id, exec_id=exec_id)
        return self.client.call(_AGENT, "WaitProcess", request, agent_pb2.WaitProcessResponse, timeout).status

    def read_stdout(self, container_id: str, exec_id: str, size: int) -> bytes:
        """Wait for output and return up to `size` bytes, or b"" at the end of the stream."""
        request = agent_pb2.ReadStreamRequest(container_id=container_id, exec_id=exec_id, len=size)
        return self.client.call(_AGENT, "ReadStdout", request, agent_pb2.ReadStreamResponse).data

    def read_stderr(self, container_id: str, exec_id: str, size: int) -> bytes:
        """Wait for error output and return up to `size` bytes, or b"" at the end of the stream."""
        request = agent_pb2.ReadStreamRequest(container_id=container_id, exec_id=exec_id, len=size)
        return self.client.call(_AGENT, "ReadStderr", request, agent_pb2.ReadStreamResponse).data

    def write_stdin(self, container_id: str, exec_id: str, data: bytes) -> int:
        """Write to a process's standard input and return how many bytes were accepted."""
        request = agent_pb2.WriteStreamRequest(container_id=container_id, exec_id=exec_id, data=data)
        return self.client.call(_AGENT, "WriteStdin", request, agent_pb2.WriteStreamResponse).len

    def close_stdin(self, container_id: str, exec_id: str) -> None:
        self._empty("CloseStdin", agent_pb2.CloseStdinRequest(container_id=container_id, exec_id=exec_id))

    def tty_win_resize(self, container_id: str, exec_id: str, rows: int, columns: int) -> None:
        request = agent_pb2.TtyWinResizeRequest(container_id=container_id, exec_id=exec_id, row=rows, column=columns)
        self._empty("TtyWinResize", request)

    def stats_container(self, container_id: str) -> agent_pb2.StatsContainerResponse:
        request = agent_pb2.StatsContainerRequest(container_id=container_id)
        return self.client.call(_AGENT, "StatsContainer", request, agent_pb2.StatsContainerResponse, self.timeout)

    def metrics(self) -> str:
        """Return the statistics of the agent and the guest in Prometheus's text format."""
        return self.client.call(_AGENT, "GetMetrics", agent_pb2.GetMetricsRequest(), agent_pb2.Metrics, self.timeout).metrics

    def diagnostic_data(self, kind: str, container_id: str) -> str:
        """Return what a container has left.

        `kind` is "termination_log", its last message to Kubernetes.
        """
        request = agent_pb2.GetDiagnosticDataRequest(log_type=kind, container_id=container_id)
        return self.client.call(_AGENT, "GetDiagnosticData", request, agent_pb2.GetDiagnosticDataResponse, self.timeout).data

    def update_container(self, container_id: str, resources: oci_pb2.LinuxResources) -> None:
        self._empty("UpdateContainer", agent_pb2.UpdateContainerRequest(container_id=container_id, resources=resources))

    def pause_container(self, container_id: str) -> None:
        self._empty("PauseContainer", agent_pb2.PauseContainerRequest(container_id=container_id))

    def resume_container(self, container_id: str) -> None:
        self._empty("ResumeContainer", agent_pb2.ResumeContainerRequest(container_id=container_id))

    def update_interface(self, interface: types_pb2.Interface) -> types_pb2.Interface:
        request = agent_pb2.UpdateInterfaceRequest(interface=interface)
        return self.client.call(_AGENT, "UpdateInterface", request, types_pb2.Interface, self.timeout)

    def update_routes(self, routes: Sequence[types_pb2.Route]) -> Sequence[types_pb2.Route]:
        request = agent_pb2.UpdateRoutesRequest(routes=agent_pb2.Routes(Routes=routes))
        return self.client.call(_AGENT, "UpdateRoutes", request, agent_pb2.Routes, self.timeout).Routes

    def add_arp_neighbors(self, neighbours: Sequence[types_pb2.ARPNeighbor]) -> None:
        request = agent_pb2.AddARPNeighborsRequest(neighbors=agent_pb2.ARPNeighbors(ARPNeighbors=neighbours))
        self._empty("AddARPNeighbors", request)

    def list_interfaces(self) -> Sequence[types_pb2.Interface]:
        request = agent_pb2.ListInterfacesRequest()
        return self.client.call(_AGENT, "ListInterfaces", request, agent_pb2.Interfaces, self.timeout).Interfaces

    def list_routes(self) -> Sequence[types_pb2.Route]:
        return self.client.call(_AGENT, "ListRoutes", agent_pb2.ListRoutesRequest(), agent_pb2.Routes, self.timeout).Routes

    def guest_details(self) -> agent_pb2.GuestDetailsResponse:
        request = agent_pb2.GuestDetailsRequest(mem_block_size=True, mem_hotplug_probe=True)
        return self.client.call(_AGENT, "GetGuestDetails", request, agent_pb2.GuestDetailsResponse, self.timeout)

    def set_guest_date_time(self, seconds: int, microseconds: int) -> None:
        self._empty("SetGuestDateTime", agent_pb2.SetGuestDateTimeRequest(Sec=seconds, Usec=microseconds))

    def reseed_random(self, data: bytes) -> None:
        self._empty("ReseedRandomDev", agent_pb2.ReseedRandomDevRequest(data=data))

    def copy_file(self, request: agent_pb2.CopyFileRequest) -> None:
        self._empty("CopyFile", request)

    def remove_file(self, path: str) -> None:
        """Remove what `copy_file` has made, a folder with all in it."""
        self.client.call(_GUEST, "RemoveFile", guest_pb2.RemoveFileRequest(path=path), empty_pb2.Empty, self.timeout)

    def create_sandbox_with_files(self, sandbox: agent_pb2.CreateSandboxRequest, files: Sequence[agent_pb2.CopyFileRequest]) -> None:
        """Make CreateSandbox and every CopyFile in one round trip, and raise the first one's error.

        The sandbox may not mount anything at or above the files: the calls are served in any order.
        """
        methods = [("CreateSandbox", sandbox), *(("CopyFile", file) for file in files)]
        pending = [self.client.start(_AGENT, method, request, empty_pb2.Empty, self.timeout) for method, request in methods]
        for call in pending:
            call.result()

    def get_oom_event(self) -> str:
        """Wait until the kernel has killed a process out of memory; return its container's id."""
        return self.client.call(_AGENT, "GetOOMEvent", agent_pb2.GetOOMEventRequest(), agent_pb2.OOMEvent).container_id

    def boot_timeline(self) -> guest_pb2.BootTimelineResponse:
        return self.client.call(_GUEST, "BootTimeline", empty_pb2.Empty(), guest_pb2.BootTimelineResponse, self.timeout)

    def features(self) -> bytes:
        """Return the OCI features document, as JSON."""
        return self.client.call(_GUEST, "Features", empty_pb2.Empty(), guest_pb2.FeaturesResponse, self.timeout).features

    def list_containers(self) -> Sequence[guest_pb2.ListContainersResponse.Container]:
        return self.client.call(_GUEST, "ListContainers", empty_pb2.Empty(), guest_pb2.ListContainersResponse, self.timeout).containers

    def list_processes(self, container_id: str) -> Sequence[guest_pb2.ListProcessesResponse.Process]:
        request = guest_pb2.ListProcessesRequest(container_id=container_id)
        return self.client.call(_GUEST, "ListProcesses", request, guest_pb2.ListProcessesResponse, self.timeout).processes

    def start_shell(self, request: guest_pb2.StartShellRequest) -> None:
        self.client.call(_GUEST, "StartShell", request, empty_pb2.Empty, self.timeout)

    def release_process(self, container_id: str, exec_id: str, *, when_caller_goes: bool = False) -> None:
        """Release a process's streams, so that it runs on its own and is forgotten when it ends.

        With `when_caller_goes`, do so only when this connection ends. The call then returns once
        the process has been waited for.
        """
        request = guest_pb2.ReleaseProcessRequest(container_id=container_id, exec_id=exec_id, when_caller_goes=when_caller_goes)
        self.client.call(_GUEST, "ReleaseProcess", request, empty_pb2.Empty, None if when_caller_goes else self.timeout)

    def get_clock(self) -> int:
        """Return the guest's time, in nanoseconds since the epoch."""
        return self.client.call(_GUEST, "GetClock", empty_pb2.Empty(), guest_pb2.ClockResponse, self.timeout).realtime_ns

    def prepare_template(self, used_blocks: int = 0) -> None:
        """Have the agent load everything and wipe free memory, before the guest is saved.

        `used_blocks` of the guest's memory have been used (`CloneableVm.used_blocks`). Without them
        the agent wipes its own memory only, and the VM needs no device for free pages.
        """
        request = guest_pb2.PrepareTemplateRequest(used_blocks=used_blocks, padding=bytes(PADDING))
        self.client.call(_GUEST, "PrepareTemplate", request, empty_pb2.Empty, self.timeout)

    def resume_clone(self, request: guest_pb2.ResumeCloneRequest) -> guest_pb2.ResumeCloneResponse:
        """Make a guest that was loaded from a template differ from its other clones."""
        return self.client.call(_GUEST, "ResumeClone", request, guest_pb2.ResumeCloneResponse, self.timeout)

    def power_off(self) -> None:
        self.client.call(_GUEST, "PowerOff", empty_pb2.Empty(), empty_pb2.Empty, self.timeout)
