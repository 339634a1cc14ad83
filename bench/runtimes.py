"""runc and crun, which run and enter the same bundle by their command lines."""

import json
import os
import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper.errors import InnkeeperError

SECONDS = 60.0


class Runtime:
    """The command line of an OCI runtime, with a state folder of its own.

    `document` is run with the root file system `rootfs`.
    """

    def __init__(self, program: Path, folder: Path, document: Mapping[str, Any], rootfs: Path) -> None:
        self.name = program.name
        self.program = program
        self.state = folder / f"{self.name}-state"
        self.bundle = self._bundle(folder / f"{self.name}-bundle", document, rootfs)
        self.holding = self._bundle(folder / f"{self.name}-holding", with_args(document, ["/bin/sleep", "100000"]), rootfs)
        self._holder = ""
        self._number = 0

    def _bundle(self, bundle: Path, document: Mapping[str, Any], rootfs: Path) -> Path:
        bundle.mkdir(parents=True)
        root = {**document["root"], "path": str(rootfs)}
        (bundle / "config.json").write_text(json.dumps({**document, "root": root}))
        return bundle

    def __enter__(self) -> "Runtime":
        self._holder = self._new_id()
        self._command("create", "--bundle", str(self.holding), self._holder)
        self._command("start", self._holder)
        return self

    def __exit__(self, *error: object) -> None:
        self._command("delete", "--force", self._holder)

    def version(self) -> str:
        """Return the first line of `--version`."""
        return self._output("--version").splitlines()[0]

    def run(self) -> None:
        """Create, start, wait for and delete a container in one command (`run`)."""
        self._command("run", "--bundle", str(self.bundle), self._new_id())

    def steps(self) -> None:
        """Create and start a container, wait for its end and delete it, as a container engine does.

        Each step is a command of its own.
        """
        container = self._new_id()
        pid_file = self.bundle / "pid"
        self._command("create", "--bundle", str(self.bundle), "--pid-file", str(pid_file), container)
        process = os.pidfd_open(int(pid_file.read_text()))
        try:
            self._command("start", container)
            if not select.select([process], [], [], SECONDS)[0]:
                raise InnkeeperError(f"{self.name}: the container did not end within {SECONDS:.0f} s")
        finally:
            os.close(process)
        self._command("delete", container)

    def exec(self) -> None:
        """Run /bin/true in the running container (`exec`)."""
        self._command("exec", self._holder, "/bin/true")

    def _new_id(self) -> str:
        self._number += 1
        return f"innkeeper-bench-{os.getpid()}-{self._number}"

    def _command(self, *arguments: str) -> None:
        argv = [str(self.program), "--root", str(self.state), *arguments]
        with (self.bundle / "stderr").open("w+") as errors:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, timeout=SECONDS, check=False)
            if done.returncode:
                errors.seek(0)
                text = errors.read().strip().splitlines()
                raise InnkeeperError(f"{' '.join(argv)}: status {done.returncode}: {text[-1] if text else 'no output'}")

    def _output(self, *arguments: str) -> str:
        return subprocess.run([str(self.program), *arguments], capture_output=True, text=True, timeout=SECONDS, check=True).stdout


def with_args(document: Mapping[str, Any], args: list[str]) -> dict[str, Any]:
    """Return `document` with another command line."""
    return {**document, "process": {**document["process"], "args": args}}
