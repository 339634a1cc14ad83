"""The runtime command for tests: its program, bundles for it, and what it says."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agent.container.spec.reader import Document
from tests.eventually import eventually
from tests.paths import ROOT
from tests.root.container_helpers import cgroup2, document

SECONDS = 60.0
SCRIPT = """#!{python} -I
import sys
sys.path.insert(0, {project!r})
from agent.oci.main import main
sys.exit(main())
"""


def script(folder: Path) -> Path:
    """The command as one program that runs this source tree, as an installed console script would be."""
    program = folder / "innkeeper-oci"
    program.write_text(SCRIPT.format(python=sys.executable, project=str(ROOT)))
    program.chmod(0o755)
    return program


class Runtime:
    """The command with a root of its own, and groups below one that the test owns."""

    def __init__(self, program: Path, root: Path, group: str) -> None:
        self.program = program
        self.root = root
        self.group = group

    def argv(self, *arguments: str | Path) -> list[str]:
        """The command line."""
        return [str(self.program), "--root", str(self.root), *map(str, arguments)]

    def try_(self, *arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command, whatever comes of it. Its streams are files, so that a container that keeps them open holds nobody."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "timeout": SECONDS, **options}
        base = self.root.parent / f"output-{time.monotonic_ns()}"
        with open(f"{base}.out", "w+b") as out, open(f"{base}.err", "w+b") as err:
            done = subprocess.run(self.argv(*arguments), stdout=out, stderr=err, check=False, **settings)
            texts = [Path(file.name).read_bytes().decode(errors="replace") for file in (out, err)]
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def __call__(self, *arguments: str | Path, **options: Any) -> str:
        """Run a command that succeeds; its output."""
        done = self.try_(*arguments, **options)
        assert done.returncode == 0, (arguments, done.returncode, done.stderr)
        return done.stdout

    def refuses(self, *arguments: str | Path, status: int = 1, **options: Any) -> str:
        """Run a command that fails with `status`; what it says."""
        done = self.try_(*arguments, **options)
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stderr

    def state(self, id: str) -> dict[str, Any]:
        """`state`, read."""
        result: dict[str, Any] = json.loads(self("state", id))
        return result

    def status(self, id: str) -> str:
        """Where a container is in its life."""
        return str(self.state(id)["status"])

    def until(self, id: str, status: str) -> None:
        """Wait for a status."""
        eventually(lambda: self.status(id) == status, lambda: self.status(id))

    def group_of(self, id: str) -> Path:
        """The container's cgroup."""
        return cgroup2() / self.group / id


class Bundle:
    """A folder with a config.json; `document` is changed and written with `save`."""

    def __init__(self, path: Path, root: Path, group: str) -> None:
        self.path = path
        self.rootfs = root
        path.mkdir(parents=True, exist_ok=True)
        self.document: Document = document(root, "true")
        self.document["linux"]["cgroupsPath"] = f"/{group}/{{}}"
        self._group = group

    def args(self, *words: str, **process: Any) -> "Bundle":
        """Another program, and other fields of `process`."""
        self.document["process"] |= {"args": list(words), **process}
        return self

    def sh(self, text: str, **process: Any) -> "Bundle":
        """A shell script."""
        return self.args("sh", "-c", text, **process)

    def save(self, id: str) -> Path:
        """Write config.json for the container `id`; the folder."""
        self.document["linux"]["cgroupsPath"] = f"/{self._group}/{id}"
        (self.path / "config.json").write_text(json.dumps(self.document))
        return self.path


def sealed_program_of(pid: int) -> bool:
    """Whether a process's program file is a copy in memory."""
    return os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
