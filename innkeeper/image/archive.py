"""Read an image's config from an oci-archive without unpacking it.

skopeo unpacks the whole archive to find the config. Reading it here means that a run of a cached
image copies nothing. Unusual archives are left to skopeo.
"""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper.files import sha256
from innkeeper.image.tar import entries, open_tar

BLOB_MAX = 4 << 20
"""Bytes of the largest manifest or config to read, the same limit as in containers/image."""
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def peek_config(source: str) -> bytes | None:
    """Return the raw config of the only image in `oci-archive:PATH`, or None.

    Returns None for any other source, for an archive of several images, and for a damaged one:
    skopeo then has to find the config, or the right error.
    """
    transport, _, path = source.partition(":")
    if transport != "oci-archive" or ":" in path:
        return None
    try:
        with open_tar(Path(path)) as archive:
            members = {member.name.removeprefix("./"): member for member in entries(archive) if member.isreg()}
            manifests = json.loads(_read(archive, members, "index.json"))["manifests"]
            if len(manifests) != 1 or manifests[0].get("mediaType", _MANIFEST) != _MANIFEST:
                return None
            manifest = json.loads(_blob(archive, members, manifests[0]["digest"]))
            return _blob(archive, members, manifest["config"]["digest"])
    except (OSError, tarfile.TarError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _blob(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], digest: Any) -> bytes:
    algorithm, _, value = str(digest).partition(":")
    data = _read(archive, members, f"blobs/{algorithm}/{value}")
    if algorithm != "sha256" or sha256(data) != value:
        raise ValueError(f"blob {digest} is not what its name says")
    return data


def _read(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes:
    member = members[name]
    file = archive.extractfile(member)
    if member.size > BLOB_MAX or file is None:
        raise ValueError(f"{name} is too large")
    return file.read()
