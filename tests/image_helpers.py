"""OCI images that ordinary tools do not make, written as a layout: layers of raw bytes, indexes in indexes, foreign platforms."""

import gzip
import hashlib
import io
import json
import platform
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innkeeper import programs
from innkeeper.image.tree import Inode
from tests import images

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class Blob:
    """A layer as it is stored, its media type, and the sha256 of what it holds uncompressed."""

    data: bytes
    media_type: str
    diff_id: str


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return an uncompressed tar in PAX format."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def file(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Return one entry of `tar`: a file, or with `type` another kind."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def zstd(data: bytes) -> bytes:
    """Return a zstd frame of uncompressed blocks (RFC 8878, 3.1.1)."""
    frame = struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data))
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)] or [b""]
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        frame += (len(piece) << 3 | int(last)).to_bytes(3, "little") + piece
    return frame


def layer(raw: bytes, how: str = "none", media_type: str = "") -> Blob:
    """Store `raw` in one of the ways that layers are found in: none, gzip, gzip-members, zstd, zstd-frames."""
    pieces = [raw[at : at + 3000] for at in range(0, len(raw), 3000)] or [b""]
    skippable = struct.pack("<II", 0x184D2A50, 5) + b"extra"
    stored = {
        "none": lambda: raw,
        "gzip": lambda: gzip.compress(raw, mtime=0),
        "gzip-members": lambda: b"".join(gzip.compress(piece, mtime=0) for piece in pieces),
        "zstd": lambda: zstd(raw),
        "zstd-frames": lambda: skippable.join(zstd(piece) for piece in pieces) + skippable,
    }[how]()
    kind = media_type or LAYER + {"none": "", "gzip": "+gzip", "zstd": "+zstd"}[how.partition("-")[0]]
    return Blob(stored, kind, _digest(raw))


@dataclass
class Layout:
    """An OCI layout in memory. `add_*` return descriptors; `save` writes those of the index."""

    blobs: dict[str, bytes] = field(default_factory=dict)

    def add(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Keep a blob."""
        digest = _digest(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def add_image(self, layers: Iterable[Blob], built_for: Mapping[str, str], config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Keep an image."""
        listed = list(layers)
        document = {**built_for, "config": config, "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in listed]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.add(blob.data, blob.media_type) for blob in listed],
        }
        return self.add(json.dumps(manifest).encode(), MANIFEST, **more)

    def add_index(self, manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Keep an index."""
        return self.add(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}).encode(), INDEX)

    def save(self, path: Path, *manifests: Mapping[str, Any]) -> str:
        """Write an archive; returns its reference."""
        index = {"schemaVersion": 2, "manifests": list(manifests)}
        members = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
        members |= {f"blobs/sha256/{digest.partition(':')[2]}": data for digest, data in self.blobs.items()}
        path.write_bytes(tar(file(name, data) for name, data in members.items()))
        return f"oci-archive:{path}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def busybox_root(etc: str = "etc") -> list[tuple[tarfile.TarInfo, bytes]]:
    """Return the entries of a root with busybox, its applets and the accounts of `tests.images`; account files go below `etc`."""
    folders = {"bin": 0o755, "home": 0o755, "run": 0o755, "root": 0o700, "tmp": 0o1777, etc: 0o755}
    made = [file(name, type=tarfile.DIRTYPE, mode=mode) for name, mode in folders.items()]
    made += [file("home/guest", type=tarfile.DIRTYPE, mode=0o755, uid=1000, gid=1000)]
    made += [file("bin/busybox", programs.require("busybox").read_bytes(), mode=0o755)]
    made += [file(f"bin/{name}", type=tarfile.SYMTYPE, linkname="busybox") for name in images.APPLETS.split()]
    return [*made, file(f"{etc}/passwd", images.PASSWD.encode()), file(f"{etc}/group", images.GROUP.encode())]


def walk(root: Inode) -> Iterator[tuple[bytes, Inode, Inode]]:
    """Yield every name below `root` in order, as (path, inode, its directory).

    A hard link is yielded once per name.
    """
    pending: list[tuple[bytes, Inode]] = [(b"", root)]
    while pending:
        prefix, directory = pending.pop()
        below = []
        for name in sorted(directory.children):
            node = directory.children[name]
            path = prefix + b"/" + name
            yield path, node, directory
            if node.is_dir:
                below.append((path, node))
        pending.extend(reversed(below))
