"""The validation suite of runtime-tools: built once from the module that `tests/runtime_tools` pins.

Its programs are run one at a time, against any runtime.

Each program runs in mount and pid namespaces of its own, so that what it or its runtime leaves behind ends with it, and sees the kind
of control groups that its runtime can work with.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pytest

from tests import go_helpers
from tests.paths import ROOT

SOURCE = ROOT / "tests/runtime_tools"
MODULE = "github.com/opencontainers/runtime-tools"
"""Its programs with the helper that they run in containers, and, beside them in the module, root file systems for those."""
HELPER = "runtimetest"
TABLE: pytest.StashKey[str] = pytest.StashKey()
"""What was said of our runtime and of others, to be shown at the end of a session."""
SECONDS = 120
WORKERS = 4

# What a program does not see of control groups. crun 1.8 works with all of v1 or all of v2, and not with both.
VIEWS = {"as found": "none", "v1": "unified"}
INSIDE = """
hidden=$1; shift
mkdir "$TMPDIR/dev"
mount -t tmpfs -o mode=755 dev "$TMPDIR/dev"
mknod -m 666 "$TMPDIR/dev/null" c 1 3
mount --bind "$TMPDIR/dev/null" /dev/null
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    mkdir "$TMPDIR/groups"
    mount -t tmpfs -o mode=755 groups "$TMPDIR/groups"
    for place in /sys/fs/cgroup/*; do
        name=${place##*/}
        if mountpoint -q "$place" && [ "$name" != "$hidden" ]; then
            mkdir "$TMPDIR/groups/$name"
            mount --bind "$place" "$TMPDIR/groups/$name"
        fi
    done
    mount --rbind "$TMPDIR/groups" /sys/fs/cgroup
fi
status=0
"$@" || status=$?
for id in $("$RUNTIME" list -q 2>/dev/null); do "$RUNTIME" delete --force "$id" >/dev/null 2>&1 || true; done
exit $status
"""
"""The null device is this run's own: crun gives standard streams to the container's user, whatever they are (CVE-2026-88265). So is the
file system that the groups are mounted on: for a controller that is missing, runtimes make ordinary directories there.
The shell stays, as the namespace's first process: it reaps what a runtime leaves to its engine. The suite does not delete all it makes."""

# They use groups and paths of one name, so no two of them at a time.
ALONE = re.compile(r"linux_cgroups_.*|delete_.*")


def build() -> Path:
    """Return the folder with the suite's programs, `runtimetest` among them, and the root file systems."""
    packages = (f"{MODULE}/validation/...", f"{MODULE}/cmd/{HELPER}")
    return go_helpers.build("test-runtime-tools", SOURCE, *packages, data=f"{MODULE} rootfs-*.tar.gz")


def names(built: Path) -> list[str]:
    """Return the names of the suite's programs."""
    return sorted(path.name for path in built.iterdir() if not path.suffix and path.name != HELPER)


@dataclass(frozen=True, slots=True)
class Subject:
    """A runtime to judge. `call` is the shell text that runs it, with its root in $ROOT and its arguments in $@."""

    name: str
    call: str
    view: str = "as found"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a program said of a runtime: assertions that hold and that do not, those left out, and whether it came to its end."""

    held: int
    failed: int
    left_out: int
    complete: bool
    output: str

    @property
    def word(self) -> str:
        """clean, failing, or silent for a program that asserts nothing."""
        if self.failed or not self.complete:
            return "failing"
        return "clean" if self.held + self.left_out else "silent"


def read_tap(text: str, status: int) -> Verdict:
    """The verdict of a program's output (the Test Anything Protocol) and exit status."""
    lines = text.splitlines()
    left_out = len([line for line in lines if re.match(r"ok\b.*# SKIP", line)])
    held = len([line for line in lines if re.match(r"ok\b", line)]) - left_out
    failed = len([line for line in lines if re.match(r"not ok\b", line)])
    plans = re.findall(r"^1\.\.(\d+)", text, re.MULTILINE)
    planned = int(plans[-1]) if plans else 0
    return Verdict(held, failed, left_out, status == 0 and held + failed + left_out >= planned, text)


def judge(built: Path, subjects: Iterable[Subject], names: Iterable[str], work: Path) -> dict[str, dict[str, Verdict]]:
    """Program -> runtime -> verdict. Most programs sleep most of the time, so several run at once."""
    alone = Lock()
    jobs: list[tuple[str, Subject]] = [(name, subject) for name in names for subject in subjects]
    # The slow ones that have to wait for each other first.
    jobs.sort(key=lambda job: (not ALONE.fullmatch(job[0]), job[0] not in ("delete", "linux_masked_paths")))

    def run(job: tuple[str, Subject]) -> tuple[str, str, Verdict]:
        name, subject = job
        if ALONE.fullmatch(name):
            with alone:
                return name, subject.name, _run(built, name, subject, work)
        return name, subject.name, _run(built, name, subject, work)

    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(run, jobs))
    remove_groups("cgrouptest/container", "cgrouptest", "testdir/cgrouptest/container", "testdir/cgrouptest", "testdir")
    verdicts: dict[str, dict[str, Verdict]] = {}
    for name, subject_name, verdict in results:
        verdicts.setdefault(name, {})[subject_name] = verdict
    return verdicts


def remove_groups(*names: str) -> None:
    """Remove empty groups with these paths, which some runtimes leave behind in the hierarchies of cgroup v1.

    They make them below the root of a hierarchy, or below the group that they run in themselves.
    """
    own = {line.split(":")[2].strip("/") for line in Path("/proc/self/cgroup").read_text().splitlines()}
    parents = [Path("/sys/fs/cgroup"), *(folder / inner for folder in Path("/sys/fs/cgroup").iterdir() for inner in {"", *own})]
    for name in names:
        for parent in parents:
            try:
                (parent / name).rmdir()
            except OSError:
                continue  # there is none, or it is in use


def _run(built: Path, name: str, subject: Subject, work: Path) -> Verdict:
    folder = work / f"{subject.name}-{name}"
    folder.mkdir(parents=True)
    runtime = folder / "runtime"
    runtime.write_text(f"#!/bin/sh\nROOT={folder}/state\n{subject.call}\n")
    runtime.chmod(0o755)
    (folder / "tmp").mkdir()
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    argv = [*unshare, "/bin/sh", "-ec", INSIDE, "sh", VIEWS[subject.view], f"{built}/{name}"]
    environment = {**os.environ, "RUNTIME": str(runtime), "TMPDIR": str(folder / "tmp")}
    with open(folder / "tap", "w+b") as tap, open(folder / "errors", "w+b") as errors:
        try:
            process = subprocess.run(
                argv, cwd=built, env=environment, stdin=subprocess.DEVNULL, stdout=tap, stderr=errors, timeout=SECONDS, check=False
            )
            status = process.returncode
        except subprocess.TimeoutExpired:
            status = 124
    text = (folder / "tap").read_bytes().decode(errors="replace")
    verdict = read_tap(text, status)
    said = (folder / "errors").read_bytes().decode(errors="replace")
    return Verdict(verdict.held, verdict.failed, verdict.left_out, verdict.complete, text + said)


def table(verdicts: dict[str, dict[str, Verdict]], subjects: Iterable[Subject], notes: Mapping[str, str]) -> str:
    """A line a program, with its note, then the sums."""
    columns = [subject.name for subject in subjects]
    lines = [f"{'':32}" + "".join([f"{name:>18}" for name in columns])]
    for program, row in sorted(verdicts.items()):
        cells = "".join([f"{row[name].word:>9} {f'{row[name].held}/{row[name].failed}':>8}" for name in columns])
        lines.append(f"{program:32}{cells}  {notes.get(program, '')}".rstrip())
    for word in ("clean", "failing", "silent"):
        lines.append(f"{word:32}" + "".join([f"{len([1 for row in verdicts.values() if row[name].word == word]):>18}" for name in columns]))
    return "\n".join(lines)
