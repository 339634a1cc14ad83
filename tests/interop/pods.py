"""Pods through CRI, by crictl."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.eventually import eventually
from tests.interop.node import IMAGE, SECONDS, Node, crictl


class Pod:
    """One pod of a runtime handler, with annotations. `remove` it."""

    def __init__(self, node: Node, name: str, handler: str, annotations: dict[str, str] | None = None) -> None:
        self._program = crictl()
        self._socket = f"unix://{node.folder}/containerd.sock"
        self._folder = node.folder / name
        self._folder.mkdir()
        metadata = {"name": name, "namespace": "default", "uid": name, "attempt": 1}
        document = {"metadata": metadata, "log_directory": str(self._folder), "linux": {}, "annotations": annotations or {}}
        self._configuration = self._write("pod", document)
        self.id = self.crictl("runp", "--runtime", handler, self._configuration)

    def _write(self, name: str, document: dict[str, Any]) -> str:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(document))
        return str(path)

    def argv(self, *words: str) -> list[str]:
        """A command line of crictl."""
        return [str(self._program), "--config", "/dev/null", "-r", self._socket, "-t", "120s", *words]

    def attempt(self, *words: str, data: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        """Run crictl, with `data` as its input; whatever comes of it."""
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        return subprocess.run(self.argv(*words), **stdin, capture_output=True, timeout=SECONDS, check=False)

    def crictl(self, *words: str, data: bytes | None = None) -> str:
        """Run it; what it printed."""
        done = self.attempt(*words, data=data)
        assert done.returncode == 0, (words, done.returncode, done.stdout[-500:], done.stderr[-2000:])
        return done.stdout.decode().strip()

    def start(self, name: str, script: str, mounts: Sequence[tuple[Path, str]] = (), **fields: Any) -> str:
        """A container that runs a shell's script, with folders and files of the host in read-only places; its id.

        `fields` are more of CRI's container configuration.
        """
        document = {
            "metadata": {"name": name},
            "image": {"image": IMAGE},
            "log_path": f"{name}.log",
            "linux": {},
            "command": ["sh", "-c", script],
            "mounts": [{"host_path": str(source), "container_path": place, "readonly": True} for source, place in mounts],
            **fields,
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

    def exit_code(self, id: str) -> int:
        """What a container ends with, once it has."""

        def status() -> Any:
            return json.loads(self.crictl("inspect", id))["status"]

        eventually(lambda: status()["state"] == "CONTAINER_EXITED", lambda: str(status()), every=0.1)
        return int(status()["exitCode"])

    def remove(self) -> None:
        """Stop it with its containers, and remove them."""
        self.crictl("stopp", self.id)
        self.crictl("rmp", self.id)
