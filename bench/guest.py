"""Benchmarks of the guest: its boot, its size, and the cost of a container once it is warm."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.calls import Containers, wire_section
from bench.figures import Section, figure, single
from bench.interleave import shuffled, timed
from innkeeper import programs, progress
from innkeeper.client import Agent, connect
from innkeeper.engine.host import virtual_machine
from innkeeper.guest import Artifacts
from innkeeper.image import Image, RunOptions
from innkeeper.image.run_plan import RunPlan, plan_run
from innkeeper.vm import AGENT_PORT, Disk, VirtualMachine, VmConfig
from innkeeper.wire.pb import agent_pb2, guest_pb2

KERNEL_BUDGET, ROOT_BUDGET = 6_000_000, 25_000_000
RESIDENT_BUDGET = 18_000_000
CHECK_REFERENCE = "no later than Kata's own guest (1.79 s seen on an idle machine)"
BOOT_SECONDS = 180.0
HOLDER = "bench-holder"
SCRATCH_BYTES = 1 << 30
STAGES = {"pid1": "PID 1 starts", "listening": "PID 1 listens"}


def sizes(artifacts: Artifacts) -> Section:
    """Return the section of the artifacts' sizes and budgets."""
    section = Section("sizes")
    for name, path, budget in (("kernel (bzImage)", artifacts.bzImage, KERNEL_BUDGET), ("root file system", artifacts.rootfs, ROOT_BUDGET)):
        size = path.stat().st_size
        section.figures.append(single(name, "MB", size / 1e6, f"at most {budget / 1e6:g}", size <= budget))
    return section


@dataclass(frozen=True)
class Boot:
    """A boot: the seconds from QEMU's start to each stage, and the guest's own timeline."""

    stages: dict[str, float]
    timeline: guest_pb2.BootTimelineResponse


def boot(vm: VirtualMachine) -> Boot:
    """Start `vm`, wait for the first answered Check, then ask the guest for its timeline."""
    started = time.monotonic()
    vm.start()
    prepared = vm.started - started
    vm.wait_ready(BOOT_SECONDS)
    answered = time.monotonic() - started - prepared
    with connect(vm.address(AGENT_PORT), 30) as client:
        timeline = Agent(client).boot_timeline()
    return Boot(boot_stages(timeline, answered), timeline)


def boot_stages(timeline: guest_pb2.BootTimelineResponse, answered: float) -> dict[str, float]:
    """Return the seconds from QEMU's start to each stage.

    `answered` are the seconds to the first answered Check. Guest times count from the start of the
    guest kernel's clock. The first answered Check is the one event that host and guest both saw, so
    it is used to convert them to the host's clock.
    """
    seen = {stage.name: stage.boottime_ns / 1e9 for stage in timeline.stages}
    offset = answered - seen.get("first check answered", answered)
    stages = {"kernel begins": offset}
    stages |= {title: seen[name] + offset for name, title in STAGES.items() if name in seen}
    return {**stages, "first Check answered": answered}


def boots(artifacts: Artifacts, count: int, accel: str | None) -> tuple[list[Section], str]:
    """Boot `count` times; return the sections of the timeline and of PID 1, and the accelerator."""
    done: list[Boot] = []
    used = ""
    for number in range(count):
        with (
            progress.step(f"boot {number + 1} of {count}"),
            virtual_machine(VmConfig(kernel=artifacts.vmlinux, root=artifacts.rootfs, accel=accel)) as vm,
        ):
            done.append(boot(vm))
            used = f"{vm.accel}, {vm.machine_type}"
            vm.kill()
    section = Section("boot, from QEMU's start", note=used)
    for stage in done[0].stages:
        budget = CHECK_REFERENCE if stage == "first Check answered" else ""
        section.figures.append(figure(stage, "s", [boot.stages[stage] for boot in done if stage in boot.stages], budget))
    return [section, _pid1([boot.timeline for boot in done])], used


def _pid1(timelines: list[guest_pb2.BootTimelineResponse]) -> Section:
    resident = [timeline.resident_bytes / 1e6 for timeline in timelines]
    threads = [float(timeline.threads) for timeline in timelines]
    imports = [float(len(timeline.startup_modules)) for timeline in timelines]
    return Section(
        "PID 1, everything loaded",
        [
            figure("resident memory", "MB", resident, f"at most {RESIDENT_BUDGET / 1e6:g}", RESIDENT_BUDGET / 1e6),
            figure("threads", "count", threads, "1", 1),
            figure("modules imported before it listens", "count", imports, "named in a file"),
        ],
    )


@dataclass(frozen=True)
class Guest:
    """A guest with the running container `HOLDER`. `pid` is QEMU's."""

    agent: Agent
    address: str
    containers: Containers
    pid: int


@contextmanager
def holding(
    artifacts: Artifacts,
    image: Image,
    folder: Path,
    accel: str | None,
    make: Callable[[VmConfig], VirtualMachine] = virtual_machine,
    **options: Any,
) -> Iterator[Guest]:
    """Context manager: boot a guest, and start in it a container of `image` that stays.

    Its writable disk is in `folder`. `options` are further fields of its configuration, of which
    `make` makes the VM.
    """
    folder.mkdir(exist_ok=True)
    scratch = folder / "scratch.img"
    with scratch.open("wb") as file:
        file.truncate(SCRATCH_BYTES)
    subprocess.run([programs.require("mke2fs"), "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", scratch], check=True)
    disks = (Disk(image.erofs, read_only=True), Disk(scratch, volatile=True))
    config = VmConfig(kernel=artifacts.vmlinux, root=artifacts.rootfs, disks=disks, accel=accel, **{"memory_mib": 1024, **options})
    with make(config) as vm:
        vm.start()
        vm.wait_ready(BOOT_SECONDS)
        address = vm.address(AGENT_PORT)
        with connect(address, 30) as client:
            agent = Agent(client)
            agent.create_sandbox(agent_pb2.CreateSandboxRequest(hostname="bench", sandbox_id=HOLDER))
            containers = start(agent, image, HOLDER)
            yield Guest(agent, address, containers, int(vm.entry.get("pid")))
        vm.kill()


def start(
    agent: Agent, image: Image, container_id: str, storages: Sequence[agent_pb2.Storage] = (), mounts: Sequence[object] = ()
) -> Containers:
    """Start a container of `image` that stays, with further storages and mounts of its document."""
    run = plan_run(image, RunOptions(args=["/bin/sleep", "100000"], mac="apparmor"), container_id)
    document: dict[str, Any] = run.document
    document["mounts"] = [*document["mounts"], *mounts]
    containers = Containers(agent, document)
    _copy_files(agent, run)
    containers.create(container_id, document, [*run.storages, *storages])
    return containers


def warm(artifacts: Artifacts, image: Image, folder: Path, rounds: int, megabytes: int, accel: str | None) -> list[Section]:
    """Measure containers, execs, streams and calls in a guest that has run some before."""
    with holding(artifacts, image, folder, accel) as guest:
        latencies = _latencies(guest.containers, guest.agent, image, rounds)
        return [latencies, wire_section("calls and streams of a warm guest", guest.containers, guest.address, HOLDER, megabytes)]


def _copy_files(agent: Agent, run: RunPlan) -> None:
    for path in run.copied_files.values():
        agent.copy_file(agent_pb2.CopyFileRequest(path=path, file_mode=0o100644, dir_mode=0o755))


def _latencies(containers: Containers, agent: Agent, image: Image, rounds: int) -> Section:
    number = iter(range(1_000_000))
    planned: list[tuple[str, RunPlan]] = []

    def plan() -> None:
        container_id = f"bench-{next(number)}"
        run = plan_run(image, RunOptions(args=["/bin/true"], mac="apparmor"), container_id)
        _copy_files(agent, run)
        planned.append((container_id, run))

    def run_one() -> float:
        plan()
        container_id, run = planned.pop()
        document: dict[str, Any] = run.document
        return timed(lambda: containers.run(container_id, document, run.storages))()

    times = shuffled({"create, start, exit, remove": run_one, "exec": timed(lambda: containers.exec(HOLDER))}, rounds)
    section = Section("a container in a warm guest")
    section.figures = [figure(name, "ms", [value * 1e3 for value in values]) for name, values in times.items()]
    return section
