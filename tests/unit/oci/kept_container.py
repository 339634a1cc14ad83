"""A container of the runtime command without root: a real process, a state directory, and plain files in place of cgroup2."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.container.cgroup import files
from agent.oci import command_table
from agent.oci.arguments import parse
from agent.oci.command_table import Context
from agent.oci.output import Log
from agent.oci.record import Record, start_time
from agent.oci.state_dir import StateDir

FILES = {
    "cgroup.controllers": "cpu cpuset io memory pids",
    "cgroup.subtree_control": "cpu cpuset io memory pids",
    "cgroup.procs": "",
    "cgroup.events": "populated 1\nfrozen 0\n",
    "cgroup.freeze": "0\n",
    "cpu.idle": "0\n",
    "cpu.max": "max 100000\n",
    "cpu.max.burst": "0\n",
    "cpu.stat": "usage_usec 30\n",
    "cpu.weight": "100\n",
    "cpuset.cpus": "\n",
    "cpuset.mems": "\n",
    "io.bfq.weight": "default 100\n",
    "io.weight": "default 100\n",
    "memory.current": "4096\n",
    "memory.events": "low 0\noom 0\noom_kill 0\n",
    "memory.low": "0\n",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "pids.max": "max\n",
}
DOCUMENT = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"]},
    "linux": {"namespaces": [{"type": "mount"}]},
}


class KeptContainer:
    """The container `a`. `first` is its first process, `cgroup` the folder that looks like its cgroup."""

    def __init__(self, folder: Path, first: "subprocess.Popen[bytes]") -> None:
        self.root = folder / "state"
        self.cgroup = folder / "cgroup"
        self.first = first
        self._log = folder / "written"

    def fill(self) -> None:
        """Make the state directory and the cgroup's files."""
        self.cgroup.mkdir()
        for name, text in FILES.items():
            (self.cgroup / name).write_text(text)
        record = Record(
            id="a",
            version="1.2.0",
            bundle=str(self.root.parent),
            rootfs="/",
            created="",
            owner="root",
            annotations={},
            cgroup=str(self.cgroup),
            made=(str(self.cgroup),),
            pid=self.first.pid,
            start_time=start_time(self.first.pid),
        )
        with StateDir.create(self.root, "a") as state_dir:
            state_dir.save_config(DOCUMENT)
            state_dir.save(record)

    def write(self, name: str, value: str) -> None:
        """Take a write to a file of the cgroup as the kernel does, and note it. Runs in a worker too."""
        if not (self.cgroup / name).exists():
            raise FileNotFoundError(name)
        (self.cgroup / name).write_text(f"{value}\n")
        with self._log.open("a") as log:
            log.write(f"{name} = {value}\n")

    def written(self) -> list[str]:
        """Return what was written since the last call, in order."""
        text = self._log.read_text() if self._log.exists() else ""
        self._log.unlink(missing_ok=True)
        return text.splitlines()

    def __call__(self, verb: str, *words: str) -> int:
        """Run a verb for this container in this process. Return the exit status."""
        command = command_table.find(verb)
        parsed = parse([*words, "a"], command.options)
        command.check_arguments(parsed)
        return command.action(Context(self.root, Log()), parsed)

    def resources(self) -> dict[str, Any]:
        """Return the limits that the state directory has since the last update."""
        with StateDir.open(self.root, "a") as state_dir:
            return state_dir.load().resources


@contextmanager
def kept_container(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptContainer]:
    """Context manager: a running container."""
    with subprocess.Popen(["sleep", "1000"]) as first:
        try:
            container = KeptContainer(folder, first)
            container.fill()
            monkeypatch.setattr(files, "write", lambda _cgroup, name, value: container.write(name, value))
            yield container
        finally:
            first.kill()
