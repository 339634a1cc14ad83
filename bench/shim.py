"""Measure `ctr run --rm` with our shim, booted and from a template, runc and Kata's shim."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Section, figure, ratio
from bench.interleave import shuffled, timed
from bench.measured_node import MeasuredNode, repeats
from bench.node import Guest, why_no_shim
from innkeeper import paths, programs
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.vm import process_info

if TYPE_CHECKING:
    from tests.shim.node import Node

RUNC, BOOTED, CLONED, KATA = "runc", "our shim, booted", "our shim, from a template", "Kata's shim, our guest"
NEEDED = ("qemu-system-x86_64", "virtiofsd", "setpriv", "nsenter", "ctr", "runc", "ip", "busybox", "mke2fs")
LIMIT = 0.4
"""A run from a template is to take at most this part of one by Kata's shim."""
GAP_SECONDS = 1.0
"""Seconds to wait after a VM, so that its shim has ended too."""


def sections(artifacts: Artifacts, rounds: int) -> list[Section]:
    """Return the sections of the times of a container, and of the host's memory of one.

    Raises InnkeeperError.
    """
    from tests.shim.node import running_node

    if os.geteuid() != 0:
        raise InnkeeperError("containerd needs root")
    programs.require_all(NEEDED)
    katas: list[MeasuredNode] = []
    with ExitStack() as stack:
        node = stack.enter_context(running_node())
        _make_template(node)
        subjects: dict[str, Callable[[], float]] = {
            RUNC: timed(lambda: _run(node, "--runtime", "io.containerd.runc.v2")),
            BOOTED: timed(lambda: _run(node, *_ours(node, "shim.toml"))),
            CLONED: timed(lambda: _run(node, *_ours(node, "template.toml"))),
        }
        if (missing := why_no_shim()) is None:
            kata = stack.enter_context(MeasuredNode(Guest(KATA, artifacts.bzImage, artifacts.disk, "erofs")))
            katas.append(kata)
            one = timed(lambda: kata.run("--rm", "true"))
            subjects[KATA] = lambda: kata.measure(one)
        times = shuffled(subjects, rounds, GAP_SECONDS)
        memory = _memory(node)
    result = Section("ctr run --rm, to its end", note=missing or f"by turns in one run, with the same QEMU{repeats(katas)}")
    result.figures += [figure(name, "s", values) for name, values in times.items()]
    result.figures.append(ratio(f"{CLONED} / {BOOTED}", times[CLONED], times[BOOTED], None))
    if KATA in times:
        result.figures.append(ratio(f"{CLONED} / {KATA}", times[CLONED], times[KATA], LIMIT))
    return [result, memory]


def _ours(node: "Node", configuration: str) -> tuple[str, ...]:
    return "--runtime", "io.containerd.innkeeper.v2", "--runtime-config-path", str(node.folder / configuration)


def _run(node: "Node", *options: str) -> None:
    """Run a container to its end. Raises InnkeeperError."""
    from tests.shim.node import IMAGE

    name = f"bench-{time.monotonic_ns()}"
    node.groups.add(("default", name))
    done = node.try_ctr("run", "--rm", *options, IMAGE, name, "true")
    if done.returncode:
        raise InnkeeperError(f"ctr run {' '.join(options)} failed: {done.stderr.strip()}")


def _make_template(node: "Node") -> None:
    """Make the template of the node's second configuration. Raises InnkeeperError."""
    argv = [sys.executable, "-P", "-m", "innkeeper.cli", "shim", "template", "--config", str(node.folder / "template.toml")]
    done = subprocess.run(argv, cwd=paths.project_root(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InnkeeperError(done.stderr.strip().removeprefix("error: "))


def _descendants(pid: int) -> set[int]:
    """Return the children of a process, and theirs (proc_pid_task(5))."""
    found = set[int]()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child, *_descendants(child)}
    return found


def _memory(node: "Node") -> Section:
    """Return the section of what a container that sleeps costs on the host."""
    from tests.shim.node import IMAGE

    result = Section("host memory of a container by our shim", note="Pss; a VM of 512 MiB")
    for name, configuration in ((BOOTED, "shim.toml"), (CLONED, "template.toml")):
        node.groups.add(("default", "idle"))
        node.ctr("run", "--detach", *_ours(node, configuration), IMAGE, "idle", "sleep", "100000")
        time.sleep(GAP_SECONDS)
        qemu = node.pid("idle")
        shim = node.shim_of(qemu)
        parts = {"QEMU": [qemu], "the shim": [shim], "its helpers": sorted(_descendants(shim) - {qemu})}
        for part, pids in parts.items():
            result.figures.append(figure(f"{name}: {part}", "MB", [sum(map(process_info.memory, pids)) / 1e6]))
        node.end_all()
    return result
