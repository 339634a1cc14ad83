"""The container to measure: a static busybox, as a folder and as an OCI image."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

from innkeeper import programs

APPLETS = ("true", "sleep", "dd", "cat", "sh")
FOLDERS = ("proc", "sys", "dev", "etc", "tmp", "root")


def make_root(root: Path) -> None:
    """Fill `root` with busybox, the applets that are used here, and mount points."""
    for folder in ("bin", *FOLDERS):
        (root / folder).mkdir(parents=True)
    shutil.copy(programs.require("busybox").resolve(), root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for name in ("resolv.conf", "hosts", "hostname"):
        (root / "etc" / name).touch()


def make_layout(root: Path, layout: Path) -> str:
    """Write `root` as an OCI layout with one layer, and return its reference.

    The bits are the same each time.
    """
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = _tar(root)
    layer_name = _blob(blobs, layer)
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_name}"]},
    }
    document = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", _blob(blobs, document), len(document)),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer_name, len(layer))],
    }
    text = json.dumps(manifest).encode()
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", _blob(blobs, text), len(text))
    entry["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{layout}:bench"


def _descriptor(media_type: str, name: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": size}


def _blob(blobs: Path, data: bytes) -> str:
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return name


def _tar(root: Path) -> bytes:
    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return entry

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, path.relative_to(root), recursive=False, filter=plain)
    return data.getvalue()
