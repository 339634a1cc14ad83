"""Measure `run`, `exec` and `ps` as commands, alternating with `podman run` of the same image."""

import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.figures import Section, figure, ratio
from bench.interleave import T, shuffled, timed
from innkeeper import paths, programs
from innkeeper.errors import InnkeeperError
from innkeeper.vm import pooled

SECONDS = 300.0
"""Seconds that one command may take. The first `run` from a template makes the template."""
POLL_SECONDS = 0.1
TEMPLATE_BUDGET, POOL_BUDGET, PODMAN_BUDGET = 0.3, 0.15, 3.0
CPU_BUDGET, EXEC_BUDGET = 0.15, 0.5
BOOTED, CLONED, POOLED, PODMAN = "run --rm, booted", "run --rm, from a template", "run --rm, from the pool", "podman run --rm"

STAGES = {
    "until the agent answers": "the guest .*",
    "creating the container": "the container was created",
    "running it to its end": "the container started and ended",
}
REST = "the command's own start and end"

GROUP = "libpod_parent"

# Where root lacks CAP_SYS_RESOURCE it cannot raise limits, and where cgroup v1 has the controllers
# there is none for podman's default limit of processes. Its default network has a fixed name.
PODMAN_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
log_driver = "k8s-file"
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def sections(reference: str, folder: Path, rounds: int, accel: str | None) -> list[Section]:
    """Return the sections of `run` and of the commands on a running container.

    Raises InnkeeperError.
    """
    ours = Ours(accel)
    return [_runs(ours, reference, folder, rounds), _short_commands(ours, reference, rounds)]


class Ours:
    """Our command as a user types it: build.py, in whichever Python it chooses."""

    def __init__(self, accel: str | None) -> None:
        self.program = paths.project_root() / "build.py"
        self.accel = ["--accel", accel] if accel else []

    def run(self, *arguments: str) -> str:
        """Run a container, with `arguments` as those of `run`."""
        return self("run", *self.accel, *arguments)

    def debugged(self, *arguments: str) -> str:
        """Return what a command prints on standard error with `--debug`."""
        argv = [str(self.program), *arguments]
        environment = {**os.environ, "INNKEEPER_DEBUG": "1"}
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=SECONDS, check=True)
        return done.stderr

    def __call__(self, *arguments: str) -> str:
        return _command([str(self.program), *arguments])


def _runs(ours: Ours, reference: str, folder: Path, rounds: int) -> Section:
    subjects = {
        BOOTED: timed(lambda: ours.run("--rm", "--start", "cold", reference, "true")),
        CLONED: timed(lambda: ours.run("--rm", "--start", "template", reference, "true")),
    }
    with ExitStack() as stack:
        beside, left_out = stack.enter_context(podman(reference, folder))
        if beside is not None:
            subjects[PODMAN] = timed(beside)
        stages = {CLONED: lambda: _stages(ours, reference, "template")}
        if pooled.status() is None and not ours.accel:  # a pool has the default accelerator
            await_idle = stack.enter_context(_pool(ours))
            subjects[POOLED] = _then(timed(lambda: ours.run("--rm", "--start", "pool", reference, "true")), await_idle)
            stages[POOLED] = _then(lambda: _stages(ours, reference, "pool"), await_idle)
        times = shuffled(subjects, rounds)
        taken = shuffled(stages, rounds)
    note = left_out or "podman's container has no network"
    result = Section("a container by the command line, end to end", note=f"by turns; {note}")
    result.figures = [figure(name, "s", times[name]) for name in (BOOTED, CLONED, POOLED, PODMAN) if name in times]
    for name, short, budget in ((CLONED, "from a template", TEMPLATE_BUDGET), (POOLED, "from the pool", POOL_BUDGET)):
        if name in times:
            result.figures.append(ratio(f"{short} / booted", times[name], times[BOOTED], budget))
            if PODMAN in times:
                result.figures.append(ratio(f"{short} / podman", times[name], times[PODMAN], PODMAN_BUDGET))
    for name, samples in taken.items():
        result.figures += [figure(f"{name}: {stage}", "s", [sample[stage] for sample in samples]) for stage in (*STAGES, REST)]
    return result


def _stages(ours: "Ours", reference: str, start: str) -> dict[str, float]:
    """Return the seconds of each stage of a run, as the command itself prints them with `--debug`.

    What is left of the run's time is the start of the command and its end.
    """
    begun = time.perf_counter()
    printed = ours.debugged("run", *ours.accel, "--rm", "--start", start, reference, "true")
    whole = time.perf_counter() - begun
    stages = {}
    for stage, pattern in STAGES.items():
        if not (found := re.search(rf"{pattern} in (\d+) ms", printed)):
            raise InnkeeperError(f"run --start {start}: no time of the stage {stage!r} in its output")
        stages[stage] = int(found[1]) / 1000
    return {**stages, REST: whole - sum(stages.values())}


def _then(measure: Callable[[], T], wait: Callable[[], None]) -> Callable[[], T]:
    """Return a subject that measures, then waits for what the next measurement needs."""

    def measure_and_wait() -> T:
        taken = measure()
        wait()
        return taken

    return measure_and_wait


@contextmanager
def _pool(ours: "Ours") -> Iterator[Callable[[], None]]:
    """Context manager: start a pool of one VM, and yield what waits until the next is ready.

    Nothing else that is measured is to pay for the preparation.
    """
    null = subprocess.DEVNULL
    process = subprocess.Popen([str(ours.program), "pool", "-n", "1"], stdin=null, stdout=null, stderr=null)

    def await_idle() -> None:
        deadline = time.monotonic() + SECONDS
        while not (known := pooled.status()) or not known["idle"]:
            if process.poll() is not None or time.monotonic() > deadline:
                raise InnkeeperError(f"the pool has prepared no VM: {(known or {}).get('failure') or 'it has ended'}")
            time.sleep(POLL_SECONDS)

    try:
        await_idle()
        yield await_idle
    finally:
        process.terminate()
        process.wait(SECONDS)


def _remove_groups() -> None:
    """Remove the control groups that podman leaves behind, unless they are in use."""
    for hierarchy in ("", "*/"):
        for parent in Path("/sys/fs/cgroup").glob(f"{hierarchy}{GROUP}"):
            for folder in (parent / "conmon", parent):
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def podman(reference: str, folder: Path) -> Iterator[tuple[Callable[[], object] | None, str]]:
    """Context manager: yield what runs the image's `true` by podman, or None and the reason.

    podman has a storage of its own in `folder`.
    """
    program = programs.find("podman")
    if program is None or os.geteuid() != 0:
        yield None, "podman is not installed" if program is None else "podman is measured as root only"
        return
    home = folder / "podman"
    home.mkdir()
    (home / "containers.conf").write_text(PODMAN_CONFIGURATION)
    environment = {**os.environ, "CONTAINERS_CONF": str(home / "containers.conf"), "TMPDIR": str(home)}
    argv = [
        str(program),
        *_runtime(),
        "--root",
        f"{home}/root",
        "--runroot",
        f"{home}/run",
        "--tmpdir",
        f"{home}/tmp",
        "--storage-driver",
        "vfs",
    ]

    def run() -> str:
        return _command([*argv, "run", "--rm", image, "true"], environment)

    try:
        image = _command([*argv, "pull", "-q", reference], environment).strip()
        run()
    except InnkeeperError as error:
        yield None, f"podman does not run here: {error}"
        return
    try:
        yield run, ""
    finally:
        _command([*argv, "rmi", "--all", "--force"], environment)
        _remove_groups()


def _runtime() -> list[str]:
    """Return podman's option for runc, if the host has it.

    crun, podman's default, refuses hosts where both cgroup versions have controllers.
    """
    runc = programs.find("runc")
    return ["--runtime", str(runc)] if runc else []


def _short_commands(ours: Ours, reference: str, rounds: int) -> Section:
    name = f"bench-{os.getpid()}"
    ours.run("-d", "--name", name, reference, "sleep", "100000")
    try:
        processor = shuffled({"ps": _processor(lambda: ours("ps")), "exec": _processor(lambda: ours("exec", name, "true"))}, rounds)
        waiting = shuffled({"exec": timed(lambda: ours("exec", name, "true"))}, rounds)
    finally:
        ours("rm", "-f", name)
    result = Section("commands on a running container")
    for command, title in (("ps", "ps"), ("exec", "exec NAME true")):
        result.figures.append(figure(f"{title}: processor time", "s", processor[command], f"at most {CPU_BUDGET:g}", CPU_BUDGET))
    result.figures.append(figure("exec NAME true: end to end", "s", waiting["exec"], f"at most {EXEC_BUDGET:g}", EXEC_BUDGET))
    return result


def _processor(work: Callable[[], object]) -> Callable[[], float]:
    """Return a subject that measures the processor seconds of the processes `work` waits for."""

    def measure() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return measure


def _command(argv: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a command and return its standard output.

    Raises InnkeeperError unless its status is 0.
    """
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False)
    if done.returncode:
        text = done.stderr.strip().splitlines()
        raise InnkeeperError(f"{' '.join(argv)}: status {done.returncode}: {text[-1] if text else 'no output'}")
    return done.stdout
