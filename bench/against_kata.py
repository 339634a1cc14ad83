"""Our guest compared with Kata's, both under Kata's unmodified shim.

They take turns in one run, with the same QEMU, shim, containerd and harness.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure, Section, figure, single
from bench.guest import RESIDENT_BUDGET, boot_stages
from bench.interleave import shuffled
from bench.measured_node import MeasuredNode, repeats
from bench.node import Guest
from bench.recording import CREATE_SANDBOX, resident_bytes
from innkeeper import programs, progress
from innkeeper.client import Agent, connect
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts

OURS, THEIRS = "ours", "Kata's"
NEEDED = ("qemu-system-x86_64", "ctr", "runc", "ip", "busybox")
EXECS = 3
"""Number of execs in each VM that is held. The first counts like the others."""
GAP_SECONDS = 1.0
"""Seconds to wait after a VM, so that its shim has ended too."""
HINT = "DIR needs bzImage, a kernel, and image, a disk whose first partition is the root of Kata's guest"
ROOT_TYPES = ((1024, bytes.fromhex("e2e1f5e0"), "erofs"), (1080, bytes.fromhex("53ef"), "ext4"))
"""For each file system: the offset of its magic number in a partition, the number, and its name."""
SECTOR = 512


@dataclass(frozen=True)
class Anchor:
    """The guest to compare with. `root_type` is the file system of its root."""

    kernel: Path
    image: Path
    root_type: str

    @classmethod
    def of(cls, folder: Path) -> "Anchor":
        """Return the guest whose files are in `folder`.

        Raises InnkeeperError if one of them is missing.
        """
        kernel, image = folder.resolve() / "bzImage", folder.resolve() / "image"
        for path in (kernel, image):
            if not path.is_file():
                raise InnkeeperError(f"{path} is missing", hint=HINT)
        return cls(kernel, image, root_type(image))


def root_type(image: Path) -> str:
    """Return the file system in the first partition of a disk image.

    Raises InnkeeperError if there is no partition table, or another file system.
    """
    with image.open("rb") as file:
        table = file.read(SECTOR)
        if table[510:] != bytes.fromhex("55aa"):
            raise InnkeeperError(f"{image} has no partition table", hint=HINT)
        begin = int.from_bytes(table[454:458], "little") * SECTOR
        for offset, magic, name in ROOT_TYPES:
            file.seek(begin + offset)
            if file.read(len(magic)) == magic:
                return name
    raise InnkeeperError(f"{image}: its first partition is neither ext4 nor erofs", hint=HINT)


@dataclass
class Round:
    """A round with one guest, which runs two VMs.

    Times are in seconds. `stages` is only filled for our guest.
    """

    run: float
    boots: list[float] = field(default_factory=list)
    sandboxes: list[float] = field(default_factory=list)
    execs: list[float] = field(default_factory=list)
    resident: int = 0
    stages: dict[str, float] = field(default_factory=dict)


def measure(artifacts: Artifacts, anchor: Anchor, rounds: int) -> list[Section]:
    """Measure both guests and return the sections. Nothing is left behind.

    Raises InnkeeperError and RpcError.
    """
    if os.geteuid() != 0:
        raise InnkeeperError("Kata's shim needs root")
    programs.require_all(NEEDED)
    guests = (
        Guest(OURS, artifacts.bzImage, artifacts.disk, "erofs"),
        Guest(THEIRS, anchor.kernel, anchor.image, anchor.root_type),
    )
    with ExitStack() as stack:
        nodes = [stack.enter_context(MeasuredNode(guest)) for guest in guests]
        subjects = {node.guest.name: _Subject(node) for node in nodes}
        done = shuffled(subjects, rounds, GAP_SECONDS)
    return [_comparison(done, repeats(nodes)), _stages(done[OURS]), sizes(artifacts, anchor)]


class _Subject:
    """A guest as a subject of `shuffled`."""

    def __init__(self, node: MeasuredNode) -> None:
        self._node = node

    def __call__(self) -> Round:
        with progress.step(f"a round with {self._node.guest.name}"):
            return self._node.measure(self._measure)

    def _measure(self) -> Round:
        node = self._node
        node.clear_recordings()
        start = time.perf_counter()
        node.run("--rm", "true")
        result = Round(time.perf_counter() - start)
        self._add_boot(result, node.newest())
        time.sleep(GAP_SECONDS)
        self._measure_held(result)
        return result

    def _add_boot(self, result: Round, cid: int) -> None:
        result.boots.append(self._node.boot_seconds(cid))
        result.sandboxes.append(self._node.boot_seconds(cid, CREATE_SANDBOX))

    def _measure_held(self, result: Round) -> None:
        """Start a container that stays, exec in it and query its agent, then remove it.

        After a failure it stays, and ends with the node.
        """
        node = self._node
        container = node.run("-d", "sleep", "100000")
        cid = node.newest()
        self._add_boot(result, cid)
        for number in range(EXECS):
            start = time.perf_counter()
            node.ctr("task", "exec", "--exec-id", f"exec-{number}", container, "true")
            result.execs.append(time.perf_counter() - start)
        with connect(node.address(cid), 30) as client:
            agent = Agent(client)
            result.resident = resident_bytes(agent.metrics())
            if node.guest.name == OURS:
                result.stages = boot_stages(agent.boot_timeline(), result.boots[-1])
        node.ctr("task", "rm", "--force", container)
        node.ctr("container", "rm", container)


def _comparison(done: dict[str, list[Round]], repeated: str = "") -> Section:
    """Return the section with a pair of rows for each measurement.

    The row of our guest has the budget: usually what Kata's guest took. `repeated` is added to the
    section's note.
    """
    section = Section("beside Kata's guest, under its shim", note=f"by turns in one run, with the same QEMU and containerd{repeated}")
    _pair(section, "QEMU's start to the first answered Check", "s", _each(done, "boots"), "no later than Kata's")
    _pair(section, "QEMU's start to the sandbox (CreateSandbox answered)", "s", _each(done, "sandboxes"))
    _pair(section, "ctr run --rm, to its end", "s", {name: [one.run for one in each] for name, each in done.items()})
    milliseconds = {name: [seconds * 1e3 for seconds in values] for name, values in _each(done, "execs").items()}
    _pair(section, "ctr task exec, to its end", "ms", milliseconds, "sooner than Kata's")
    resident = {name: [one.resident / 1e6 for one in each] for name, each in done.items()}
    limit = RESIDENT_BUDGET / 1e6
    _pair(section, "PID 1's resident memory, a container running", "MB", resident, f"at most {limit:g}", limit)
    return section


def _each(done: dict[str, list[Round]], what: str) -> dict[str, list[float]]:
    return {name: [value for one in each for value in getattr(one, what)] for name, each in done.items()}


def _pair(section: Section, name: str, unit: str, values: dict[str, list[float]], budget: str = "", limit: float | None = None) -> None:
    theirs = figure(f"{name}: {THEIRS}", unit, values[THEIRS])
    if budget and limit is None:
        limit = theirs.median
    section.figures += [figure(f"{name}: {OURS}", unit, values[OURS], budget, limit), theirs]


def _stages(rounds: Sequence[Round]) -> Section:
    """Return the section of the stages before the first Check in our guest.

    Only the VMs that were held are counted.
    """
    section = Section("our boot under the shim, from QEMU's start")
    for stage in rounds[0].stages:
        section.figures.append(figure(stage, "s", [each.stages[stage] for each in rounds]))
    return section


def sizes(artifacts: Artifacts, anchor: Anchor) -> Section:
    """Return the section of what a node stores for each guest.

    Images have holes, so their allocated size counts.
    """
    section = Section("sizes, beside Kata's guest")
    theirs = _taken(anchor.image)
    section.figures += [
        _size(f"kernel (bzImage): {OURS}", artifacts.bzImage.stat().st_size),
        _size(f"kernel (bzImage): {THEIRS}", anchor.kernel.stat().st_size),
        _size(f"disk image, room taken: {OURS}", _taken(artifacts.disk), "smaller than Kata's", theirs),
        _size(f"disk image, room taken: {THEIRS}", theirs),
        _size(f"root, compressed: {OURS}", artifacts.rootfs.stat().st_size),
    ]
    return section


def _taken(path: Path) -> int:
    return path.stat().st_blocks * 512


def _size(name: str, size: int, budget: str = "", limit: int | None = None) -> Figure:
    return single(name, "MB", size / 1e6, budget, None if limit is None else size < limit)
