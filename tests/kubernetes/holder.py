"""Namespaces that a cluster lives in: mounts and network of its own, which end with its last process.

What programs of Kubernetes write to fixed places of a machine goes to the cluster's folder or to memory instead: `/var/lib/kubelet`,
`/var/lib/cni`, `/var/log/containers`, `/run/netns`, and three sysctls that kubelet sets machine-wide. There is no route out.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADDRESS = "10.90.0.1"
"""The node's address. kubelet refuses one of loopback."""
SYSCTLS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
"""What kubelet wants to see there."""
NETNS = Path("/run/netns")
"""Where CRI mounts the pods' network namespaces."""

_SET_UP = """
mount --make-rshared /
ip link set lo up
ip link add node0 type bridge
ip address add {address}/24 dev node0
ip link set node0 up
mkdir -p {folder}/lib {folder}/lib-work
mount -t overlay -o lowerdir=/var/lib,upperdir={folder}/lib,workdir={folder}/lib-work overlay /var/lib
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /run/netns
{sysctls}
"""


class Holder:
    """A process that holds the namespaces, and what is started in them. `folder` is the cluster's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        self._made_netns = not NETNS.exists()
        NETNS.mkdir(exist_ok=True)
        words = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--propagation", "private")
        script = "echo; exec sleep infinity"  # the line says that the namespaces are there
        self._process = subprocess.Popen([*words, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with self._process.stdout as said:
            assert said.readline() == b"\n"
        self._set_up()

    def _set_up(self) -> None:
        binds = []
        for name, value in SYSCTLS.items():
            file = self.folder / name.replace("/", ".")
            file.write_text(f"{value}\n")
            binds.append(f"mount --bind {file} /proc/sys/{name}")
        script = _SET_UP.format(address=ADDRESS, folder=self.folder, sysctls="\n".join(binds))
        subprocess.run(self.argv("sh", "-ec", script), stdin=subprocess.DEVNULL, check=True)

    def argv(self, *words: object) -> list[str]:
        """Return a command line that runs a program in the namespaces."""
        return ["nsenter", "-t", str(self._process.pid), "--mount", "--net", "--", *map(str, words)]

    def start(self, name: str, *words: object, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a program with a log, `NAME.log`. It ends with `end` at the latest."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(self.argv(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment))
        self._started.append(process)
        return process

    def log(self, name: str) -> Path:
        """Return the log of a program."""
        return self.folder / f"{name}.log"

    def run(self, *words: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end, whatever comes of it."""
        settings: dict[str, Any] = {"timeout": 300, **({} if "input" in options else {"stdin": subprocess.DEVNULL}), **options}
        return subprocess.run(self.argv(*words), capture_output=True, text=True, check=False, **settings)

    def end(self) -> None:
        """Kill what was started, and the namespaces with it. The API server would otherwise wait for its open watches."""
        for process in reversed(self._started):
            process.kill()
            process.wait()
        self._process.kill()
        self._process.wait()
        if self._made_netns:
            NETNS.rmdir()
