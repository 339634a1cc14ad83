"""Benchmarks of the agent as an ordinary process on this host, beside runc and crun.

All of it runs in a separate process, in a mount namespace where only cgroup2 is mounted. This gives
all three the same conditions, also on a host that has both cgroup versions, where crun refuses to
work.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import many, steps
from bench.calls import Containers, wire_section
from bench.figures import Figure, Section, figure, ratio
from bench.interleave import shuffled, timed
from bench.runtimes import Runtime, with_args
from innkeeper import paths, programs
from innkeeper.client import Agent, RpcError, connect
from innkeeper.errors import InnkeeperError

AGENT_NEEDS = ("google.protobuf", "prctl", "pyseccomp", "pyroute2")
START_SECONDS = 30.0
HOLDER = "bench-holder"
WIRE = "calls and streams over a unix socket, outside of a guest"
CGROUP2_ALONE = """
mountpoint="$1"; shift
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    mount --bind "$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)" "$mountpoint"
    umount -R -l /sys/fs/cgroup
    mount --move "$mountpoint" /sys/fs/cgroup
fi
exec "$@"
"""
"""Bind-mount the host's cgroup2 where runc and crun look for it.

A new mount of cgroup2 would change the hierarchy's options for the whole host.
"""
RUN_BUDGET, STEPS_BUDGET = 0.2, 0.6
EXEC_RUNC_BUDGET, EXEC_CRUN_BUDGET = 0.15, 1.0
ROUND_TRIP_BUDGET = 100.0
"""Microseconds for a call of Check."""


def unavailable() -> str:
    """Return why nothing can be measured here, or ""."""
    if os.geteuid() != 0:
        return "containers outside of a guest need root"
    missing = [name for name in AGENT_NEEDS if not _installed(name)]
    if missing:
        return f"this Python lacks what the agent is made of: {', '.join(missing)} (pip install 'innkeeper[test]')"
    return ""


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def measure(
    folder: Path, document: Mapping[str, Any], rootfs: Path, *, rounds: int, megabytes: int, step_by_step: bool
) -> tuple[list[Section], dict[str, str]]:
    """Return the sections, and the versions of the runtimes that were compared.

    Raises InnkeeperError.
    """
    order: dict[str, Any] = {"folder": str(folder), "document": document, "rootfs": str(rootfs)}
    order |= {"rounds": rounds, "megabytes": megabytes, "step_by_step": step_by_step}
    (folder / "order.json").write_text(json.dumps(order))
    mountpoint = folder / "cgroup"
    mountpoint.mkdir()
    argv = [
        str(programs.require("setpriv")), "--pdeathsig", "TERM",
        str(programs.require("unshare")), "--mount", "--propagation", "private",
        "/bin/sh", "-ec", CGROUP2_ALONE, "sh", str(mountpoint),
        sys.executable, "-m", "bench.native", str(folder / "order.json"), str(folder / "answer.json"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise InnkeeperError(f"measuring beside runc and crun failed with status {done.returncode}: {last[0]}")
    answer = json.loads((folder / "answer.json").read_text())
    sections = [Section(**{**section, "figures": [Figure(**row) for row in section["figures"]]}) for section in answer["sections"]]
    return sections, answer["versions"]


def _measure_here(order: Mapping[str, Any]) -> dict[str, Any]:
    folder, rootfs, document, rounds = Path(order["folder"]), Path(order["rootfs"]), order["document"], order["rounds"]
    spec = {**document, "root": {**document["root"], "path": str(rootfs)}}
    if order["step_by_step"]:
        record = folder / "steps.jsonl"
        with running(folder, {steps.VARIABLE: str(record)}) as agent:
            return {"sections": [asdict(steps.section(Containers(agent, document), spec, record, rounds))], "versions": {}}
    with ExitStack() as stack:
        agent = stack.enter_context(running(folder))
        containers = Containers(agent, document)
        containers.create(HOLDER, with_args(spec, ["/bin/sleep", "100000"]))
        stack.callback(_remove, agent)
        runtimes = [stack.enter_context(Runtime(programs.require(name), folder, document, rootfs)) for name in ("runc", "crun")]
        sections = [
            _runs(containers, runtimes, spec, rounds),
            _execs(containers, runtimes, rounds),
            many.section(containers, spec),
            wire_section(WIRE, containers, _address(folder), HOLDER, order["megabytes"], trips=500, limit=ROUND_TRIP_BUDGET),
        ]
        return {"sections": [asdict(section) for section in sections], "versions": {each.name: each.version() for each in runtimes}}


def _address(folder: Path) -> str:
    return f"unix://{folder}/agent.sock"


@contextmanager
def running(folder: Path, more: Mapping[str, str] | None = None) -> Iterator[Agent]:
    """Context manager: run an agent from the source tree, on a unix socket in `folder`.

    The agent creates its own namespaces and its own cgroup.
    """
    address = _address(folder)
    log = folder / "agent.log"
    variables = {"KATA_AGENT_SERVER_ADDR": address, "KATA_AGENT_LOG_LEVEL": "warn", "PYTHONPATH": str(paths.project_root())}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **variables, **(more or {})},
        )
    try:
        yield from _connected(process, address, log)
    finally:
        process.terminate()
        process.wait()


def _connected(process: "subprocess.Popen[bytes]", address: str, log: Path) -> Iterator[Agent]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client = connect(address, 1)
            break
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace")[-500:]
                raise InnkeeperError(f"the agent did not start: {error}; its log ends with: {last}") from error
            time.sleep(0.02)
    with client:
        agent = Agent(client)
        agent.check(START_SECONDS)
        yield agent


def _remove(agent: Agent) -> None:
    agent.signal_process(HOLDER, "", 9)
    agent.remove_container(HOLDER)


def _runs(containers: Containers, runtimes: list[Runtime], spec: Mapping[str, Any], rounds: int) -> Section:
    number = iter(range(1_000_000))
    subjects = {"agent": timed(lambda: containers.run(f"bench-{next(number)}", spec))}
    for runtime in runtimes:
        subjects[f"{runtime.name} run"] = timed(runtime.run)
        subjects[f"{runtime.name} create, start, wait, delete"] = timed(runtime.steps)
    times = shuffled(subjects, rounds)
    section = Section(
        "a container from creation to removal, outside of a guest", note="the same specification for all, shuffled, with gaps"
    )
    section.figures = [figure(name, "ms", [value * 1e3 for value in values]) for name, values in times.items()]
    limits = {"runc run": RUN_BUDGET, "crun create, start, wait, delete": STEPS_BUDGET}
    for name, values in times.items():
        if name != "agent":
            section.figures.append(ratio(f"agent / {name}", times["agent"], values, limits.get(name)))
    return section


def _execs(containers: Containers, runtimes: list[Runtime], rounds: int) -> Section:
    subjects = {"agent": timed(lambda: containers.exec(HOLDER)), **{runtime.name: timed(runtime.exec) for runtime in runtimes}}
    times = shuffled(subjects, rounds)
    section = Section("exec in a running container, outside of a guest")
    section.figures = [figure(f"{name} exec", "ms", [value * 1e3 for value in values]) for name, values in times.items()]
    for name, limit in (("runc", EXEC_RUNC_BUDGET), ("crun", EXEC_CRUN_BUDGET)):
        section.figures.append(ratio(f"agent / {name} exec", times["agent"], times[name], limit))
    return section


def main(order: str, answer: str) -> int:
    """Measure what the file `order` requests and write the results to the file `answer`.

    This is the entry point of the measuring process.
    """
    try:
        result = _measure_here(json.loads(Path(order).read_text()))
    except (InnkeeperError, RpcError) as error:
        print(error, file=sys.stderr)
        return 1
    Path(answer).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
