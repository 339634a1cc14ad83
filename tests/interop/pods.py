"""Pods through CRI, by crictl."""

import json
import lzma
import subprocess
from pathlib import Path
from typing import Any

from tests.interop.node import HARNESS, IMAGE, SECONDS, Node


class Pod:
    """One pod of a runtime handler. `remove` it."""

    def __init__(self, node: Node, name: str, handler: str) -> None:
        self._program = _crictl(node)
        self._socket = f"unix://{node.folder}/containerd.sock"
        self._folder = node.folder / name
        self._folder.mkdir()
        metadata = {"name": name, "namespace": "default", "uid": name, "attempt": 1}
        self._configuration = self._write("pod", {"metadata": metadata, "log_directory": str(self._folder), "linux": {}})
        self.id = self.crictl("runp", "--runtime", handler, self._configuration)

    def _write(self, name: str, document: dict[str, Any]) -> str:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return str(path)

    def crictl(self, *words: str, data: bytes | None = None) -> str:
        """Run it, with `data` as its input; what it printed."""
        argv = [str(self._program), "--config", "/dev/null", "-r", self._socket, "-t", "120s", *words]
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        done = subprocess.run(argv, **stdin, capture_output=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, (words, done.returncode, done.stdout[-500:], done.stderr[-2000:])
        return str(done.stdout.decode()).strip()

    def start(self, name: str, script: str) -> str:
        """A container that runs a shell's script; its id."""
        document = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "log_path": f"{name}.log",
            "linux": {},
            "command": ["sh", "-c", script],
        }
        id = self.crictl("create", "--no-pull", self.id, self._write(name, document), self._configuration)
        self.crictl("start", id)
        return id

    def log(self, name: str) -> list[str]:
        """The lines that a container has written so far."""
        return [line.split(" ", 3)[3] for line in (self._folder / f"{name}.log").read_text().splitlines()]

    def address(self) -> str:
        """Its address in the pods' network."""
        return str(json.loads(self.crictl("inspectp", self.id))["status"]["network"]["ip"])

    def ready(self) -> bool:
        """Whether CRI calls it ready."""
        return str(json.loads(self.crictl("inspectp", self.id))["status"]["state"]) == "SANDBOX_READY"

    def remove(self) -> None:
        """Stop it with its containers, and remove them."""
        self.crictl("stopp", self.id)
        self.crictl("rmp", self.id)


def _crictl(node: Node) -> Path:
    path = node.folder / "bin/crictl"
    if not path.exists():
        path.write_bytes(lzma.decompress((HARNESS.parent / "bin/crictl.xz").read_bytes()))
        path.chmod(0o755)
    return path
