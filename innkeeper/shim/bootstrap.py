"""The action `start`: find or make the process that serves a container, and answer its address.

One rule works with every containerd from 1.6 to 2.4. Standard input is parsed as the parameters of
2.3 and later. They are such only if they name the container of the command line, because what
earlier versions write there has strings in the same fields. The answer to these is a protobuf
message, and to all others the plain address. JSON, which some of them take, is never written:
containerd 1.6 would dial it.
"""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import DecodeError

from innkeeper.shim import daemon, features, handler_options
from innkeeper.shim.arguments import Arguments
from innkeeper.shim.pb import containerd_pb2 as pb

SOCKETS = "/run/containerd/s"
GROUP_ANNOTATIONS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Containers with the same value share a shim. The first of these counts."""
VERSION = 3
"""Of the task service. Version 2 has the same messages, and is served too."""


def start(arguments: Arguments, standard_input: bytes, write: Callable[[bytes], None]) -> None:
    """Write the address of the container's shim with `write`.

    Makes the shim if there is none. The working directory is the bundle. In the new process this
    does not return. Raises OSError.
    """
    bundle = Path.cwd()
    params = parameters(standard_input, arguments)
    path = socket_path(params.socket_dir if params else "", arguments, group(bundle, arguments.id))
    address = f"unix://{path}"
    listener = daemon.listen(path)
    # containerd 1 finds the shim again by this file after its own restart.
    (bundle / "address").write_text(address)
    if listener is not None:
        if config := handler_options.config_path_at_start(standard_input, params):
            os.environ[handler_options.VARIABLE] = config
        daemon.launch(listener, path, arguments, bundle)
    write(answer(address, params))


def parameters(data: bytes, arguments: Arguments) -> pb.BootstrapParams | None:
    """Return the parameters of containerd 2.3 and later, or None."""
    try:
        params = pb.BootstrapParams.FromString(data)
    except DecodeError:
        return None
    return params if data and (params.instance_id, params.namespace) == (arguments.id, arguments.namespace) else None


def answer(address: str, params: pb.BootstrapParams | None) -> bytes:
    """Return what is written to standard output."""
    if params is None:
        return address.encode()
    result = pb.BootstrapResult(version=VERSION, address=address, protocol="ttrpc", extensions=[features.mount_claim()])
    return bytes(result.SerializeToString())


def group(bundle: Path, container_id: str) -> str:
    """Return the id that names the shim: that of the container's pod, else of the container."""
    try:
        annotations = json.loads((bundle / "config.json").read_bytes()).get("annotations") or {}
    except FileNotFoundError:
        return container_id
    return next((str(annotations[name]) for name in GROUP_ANNOTATIONS if annotations.get(name)), container_id)


def socket_path(folder: str, arguments: Arguments, group: str) -> Path:
    """Return the path of a shim's socket.

    It is as long as every other: a unix address has 107 bytes.
    """
    name = f"{arguments.address}/{arguments.namespace}/{group}"
    return Path(folder or SOCKETS) / sha256(name.encode()).hexdigest()
