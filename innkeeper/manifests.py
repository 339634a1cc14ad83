"""Texts that an operator would otherwise write: containerd's handlers, Kubernetes' manifests."""

from collections.abc import Iterable
from pathlib import Path

CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
"""The table of CRI in containerd's configuration, by the version of that."""
CPU_OVERHEAD = "100m"
"""What an idle pod's VM takes of a processor."""


def quoted(path: Path) -> str:
    """Return a path as a TOML string."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def handler(name: str, runtime: str, configuration: Path, *, version: int = 2, keys: Iterable[str] = ()) -> str:
    """Return the table of one runtime handler. `keys` are further lines of it."""
    table = f'[plugins."{CRI[version]}".containerd.runtimes.{name}'
    more = "".join(f"  {line}\n" for line in keys)
    return f"""
{table}]
  runtime_type = "{runtime}"
  privileged_without_host_devices = true
{more}  {table}.options]
    ConfigPath = {quoted(configuration)}
"""


def runtime_class(name: str, memory: str) -> str:
    """Return the RuntimeClass of a handler of the same name, with the `memory` of an idle pod."""
    return f"""\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: {name}
handler: {name}
overhead:
  podFixed:
    memory: {memory}
    cpu: {CPU_OVERHEAD}
"""


def example_pod(handler: str, printed: str) -> str:
    """Return a pod of a handler that shows its kernel. `printed` says in words what it prints."""
    return f"""\
apiVersion: v1
kind: Pod
metadata:
  name: {handler}-example
spec:
  runtimeClassName: {handler}
  restartPolicy: Never
  containers:
    - name: kernel
      image: docker.io/library/busybox
      command: ["uname", "-r"]   # prints {printed}
"""
