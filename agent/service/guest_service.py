"""Handlers of innkeeper.v1.Guest: state of agent and guest, a debug shell, power-off."""

import os
from typing import TYPE_CHECKING

from agent import timeline
from agent.container.lifecycle import Status
from agent.linux.reaper import reaper
from agent.pod.containers import check_id
from innkeeper.wire.pb.empty_pb2 import Empty
from innkeeper.wire.pb.guest_pb2 import (
    BootTimelineResponse,
    Event,
    FeaturesResponse,
    ListContainersResponse,
    ListProcessesResponse,
    NextEventsResponse,
)

if TYPE_CHECKING:
    from agent.container.container import Container
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import guest_pb2

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


async def boot_timeline(sandbox: "Sandbox", request: Empty) -> BootTimelineResponse:
    """Return the stages of the boot, the modules of the start, and the agent's memory."""
    resident, threads = _own_memory()
    return BootTimelineResponse(
        stages=[BootTimelineResponse.Stage(name=name, boottime_ns=when) for name, when in timeline.stages],
        startup_modules=timeline.startup_modules,
        resident_bytes=resident,
        threads=threads,
        orphans_reaped=reaper.orphans,
    )


def _own_memory() -> tuple[int, int]:
    """Return the resident bytes and the number of threads of the agent."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields["VmRSS"].split()[0]) * 1024, int(fields["Threads"])


async def features(sandbox: "Sandbox", request: Empty) -> FeaturesResponse:
    """Return the supported features, in the format of the runtime spec's features.md."""
    import json  # only this call needs it, and it takes 100 kB of PID 1

    from agent.container.features import features

    return FeaturesResponse(features=json.dumps(features(sandbox.cgroup_root)).encode())


async def list_containers(sandbox: "Sandbox", request: Empty) -> ListContainersResponse:
    """Return the containers of the sandbox."""
    return ListContainersResponse(containers=[_container(*each) for each in sandbox.containers.with_creation_times()])


def _container(container: "Container", created: float) -> ListContainersResponse.Container:
    status = container.status
    stopped = status is Status.STOPPED
    return ListContainersResponse.Container(
        id=container.id,
        status=status.value,
        pid=0 if stopped else container.init.pid,
        exit_status=container.init.exit_status or 0,
        created=created,
        annotations=dict(container.spec.annotations),
    )


async def list_processes(sandbox: "Sandbox", request: "guest_pb2.ListProcessesRequest") -> ListProcessesResponse:
    """Return the processes of a container, with their exec ids. Raises NotFound."""
    container = sandbox.containers.get(request.container_id)
    exec_ids = {process.pid: exec_id for exec_id, process in container.processes.items() if process.exit_status is None}
    boot = _boot_time()
    processes = []
    for pid in container.pids():
        try:
            processes.append(_process(pid, exec_ids.get(pid, ""), boot))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return ListProcessesResponse(processes=processes)


def _process(pid: int, exec_id: str, boot: float) -> ListProcessesResponse.Process:
    """Return the statistics of one process (proc_pid_stat(5)).

    Raises FileNotFoundError or ProcessLookupError if the process has ended.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        stat = file.read()
    # The name in parentheses may contain any character, also parentheses and spaces.
    fields = stat[stat.rindex(b")") + 2 :].split()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        arguments = [word.decode(errors="replace") for word in file.read().rstrip(b"\0").split(b"\0")]
    return ListProcessesResponse.Process(
        pid=pid,
        parent_pid=int(fields[1]),
        uid=os.stat(f"/proc/{pid}").st_uid,
        state=fields[0].decode(),
        cpu_time_ns=(int(fields[11]) + int(fields[12])) * TICK_NS,
        resident_bytes=int(fields[21]) * PAGE,
        started=boot + int(fields[19]) * TICK_NS / 1e9,
        args=arguments,
        exec_id=exec_id,
    )


def _boot_time() -> float:
    """Return the time of the boot in seconds since the epoch. Raises OSError."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith("btime "):
                return float(line.split()[1])
    raise OSError("/proc/stat has no btime")


async def start_shell(sandbox: "Sandbox", request: "guest_pb2.StartShellRequest") -> Empty:
    """Start a process with all rights of the guest; see `Shells.start`."""
    check_id("exec_id", request.exec_id)
    size = request.rows, request.columns
    await sandbox.containers.shells.start(request.exec_id, request.args, request.env, request.cwd, terminal=request.terminal, size=size)
    return Empty()


async def next_events(sandbox: "Sandbox", request: "guest_pb2.NextEventsRequest") -> NextEventsResponse:
    """Wait for the events after the number `after`, and return all of them that are recorded.

    Without `after`, return the number of the last event at once.
    """
    if not request.HasField("after"):
        return NextEventsResponse(last=sandbox.events.last)
    happened = await sandbox.events.after(request.after)
    return NextEventsResponse(events=[Event(**event._asdict()) for event in happened], last=happened[-1].number)


async def power_off(sandbox: "Sandbox", request: Empty) -> Empty:
    """End the agent. As PID 1 it powers the VM off after the answer."""
    sandbox.end()
    return Empty()


METHODS: "Handlers" = {
    "BootTimeline": boot_timeline,
    "Features": features,
    "ListContainers": list_containers,
    "ListProcesses": list_processes,
    "StartShell": start_shell,
    "NextEvents": next_events,
    "PowerOff": power_off,
}
