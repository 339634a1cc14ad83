"""Images that nodes import, in docker's archive format: busybox, with more layers above it."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from innkeeper import programs
from tests.interop.node import HARNESS

Layer = dict[str, str]
"""The files of a layer and their content; a name that ends with a slash is a folder.

`.wh.NAME` hides a file of a layer below, `.wh..wh..opq` all of its folder (OCI image specification, layer.md).
"""


def busybox(archive: Path, name: str, *entry: str) -> None:
    """Write an image with busybox. `entry` is the program that runs in it."""
    words = ("-e", *entry) if entry else ()
    argv = [str(HARNESS.parent / "make-image"), str(archive), name, *words, "--", str(programs.require("busybox"))]
    subprocess.run(argv, check=True, capture_output=True)


def layered(archive: Path, name: str, layers: Sequence[Layer]) -> None:
    """Write an image with busybox and `layers` above it, the lowest first."""
    busybox(archive, name)
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        parts = {file_name: file.read() for file_name, file in files.items() if file is not None}
    manifest, config = json.loads(parts["manifest.json"]), json.loads(parts["config.json"])
    for layer in layers:
        data = _layer(layer)
        digest = hashlib.sha256(data).hexdigest()
        parts[f"{digest}.tar"] = data
        manifest[0]["Layers"].append(f"{digest}.tar")
        config["rootfs"]["diff_ids"].append(f"sha256:{digest}")
    parts |= {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    with tarfile.open(archive, "w") as tar:
        for path, data in parts.items():
            _add(tar, path, data)


def _layer(files: Layer) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in files.items():
            _add(tar, path, text.encode())
    return out.getvalue()


def _add(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(data), 0o644
    if path.endswith("/"):
        member.type, member.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(member, io.BytesIO(data))
