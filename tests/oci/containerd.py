"""Debian's containerd for tests: its own root, state and socket, started and stopped here, with our command behind its shim for runc."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from innkeeper import programs
from tests.eventually import eventually

SECONDS = 120.0
CONFIGURATION = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{folder}/c.sock"
[ttrpc]
address = "{folder}/t.sock"
"""


class Ctr:
    """The client. Containers run by `io.containerd.runc.v2` with BinaryName set to `runtime`."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._argv = [str(programs.require("ctr")), "--address", f"{folder}/c.sock", "--namespace", "innkeeper-test"]
        # ctr gives every container a share of the processors, which needs a controller that cgroup v1 may have.
        self.choice = ["--runc-binary", str(runtime), "--cpu-shares", "0"]

    def argv(self, *words: str | Path) -> list[str]:
        """The command line."""
        return [*self._argv, *map(str, words)]

    def try_(self, *words: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command, whatever comes of it."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "timeout": SECONDS, **options}
        return subprocess.run(self.argv(*words), capture_output=True, text=True, check=False, **settings)

    def __call__(self, *words: str | Path, **options: Any) -> str:
        """Run a command that succeeds; its output without the newline at its end."""
        done = self.try_(*words, **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.rstrip("\n")

    def run(self, *words: str) -> list[str]:
        """The words of `run` with our runtime."""
        return ["run", *self.choice, *words]

    def tasks(self) -> dict[str, str]:
        """Task -> status."""
        lines = self("task", "ls").splitlines()[1:]
        return {line.split()[0]: line.split()[2] for line in lines}

    def end(self) -> None:
        """Remove every container."""
        for task in self.tasks():
            self.try_("task", "kill", "--signal", "KILL", "--all", task)
            self.try_("task", "rm", "--force", task)
        for container in self("container", "ls", "--quiet").split():
            self.try_("container", "rm", container)
        assert self("container", "ls", "--quiet") == ""


@contextmanager
def containerd(folder: Path, runtime: Path) -> Iterator[Ctr]:
    """A running containerd and its client."""
    configuration = folder / "config.toml"
    configuration.write_text(CONFIGURATION.format(folder=folder))
    daemon = str(programs.require("ctr").with_name("containerd"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [daemon, "--config", str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ}
        )
    ctr = Ctr(folder, runtime)
    try:
        eventually(lambda: process.poll() is not None or ctr.try_("version").returncode == 0, (folder / "log").read_text, SECONDS)
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield ctr
        ctr.end()
    finally:
        process.terminate()
        process.wait()
