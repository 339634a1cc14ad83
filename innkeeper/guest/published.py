"""A built guest in a registry, as an OCI artefact.

A team builds once, and everybody boots the same bits.

    digest = push(outputs, "registry.example:5000/guests/web:1")
    folder = pull("oci:registry.example:5000/guests/web@sha256:...", store)

Each output is a layer with its name as an annotation. A guest is taken only by its digest, which
skopeo checks, and each file is compared with the manifest. Credentials are skopeo's.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper import paths, progress, skopeo
from innkeeper.errors import InnkeeperError
from innkeeper.files import hash_file
from innkeeper.guest import REGISTRY_PREFIX, Artifacts, BootFiles
from innkeeper.guest.kernel import TARGETS, X86_64
from innkeeper.guest.kernel_choice import DEBIAN, OURS
from innkeeper.guest.store import Store

KIND = "application/vnd.innkeeper.guest.v1"
FILE_KIND = "application/vnd.innkeeper.guest.file.v1"
MANIFEST_KIND = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"
MANIFEST = "manifest.json"
_REFERENCE = re.compile(r"oci:(?P<name>[][\w.:/-]+?)@sha256:(?P<digest>[0-9a-f]{64})")


def push(outputs: Mapping[str, Path], reference: str) -> str:
    """Push a build's files to `REGISTRY/NAME[:TAG]` and return the reference by its digest.

    Raises InnkeeperError.
    """
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as scratch, progress.step(f"pushing the guest to {reference}"):
        layout = Path(scratch) / "layout"
        digest = write_layout(outputs, layout)
        told = Path(scratch) / "digest"
        skopeo.copy_artefact(
            f"oci:{layout}:guest",
            f"docker://{reference}",
            Path(scratch),
            f"the guest cannot be pushed to {reference}",
            ["--digestfile", str(told)],
        )
        if told.read_text().strip() != digest:
            raise InnkeeperError(f"{reference}: the registry has another manifest than was pushed: {told.read_text().strip()}")
    name = re.sub(r":[^:/]+$", "", reference)
    return f"{REGISTRY_PREFIX}{name}@{digest}"


def write_layout(outputs: Mapping[str, Path], layout: Path) -> str:
    """Write the files as an OCI image layout and return the digest of its manifest.

    The same files give the same digest.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = []
    for name, path in sorted(outputs.items()):
        digest, size = hash_file(path), path.stat().st_size
        if not (blobs / digest).exists():
            shutil.copyfile(path, blobs / digest)
        layers.append({"mediaType": FILE_KIND, "digest": f"sha256:{digest}", "size": size, "annotations": {TITLE: name}})
    config = _blob(blobs, b"{}")
    document = {"schemaVersion": 2, "mediaType": MANIFEST_KIND, "config": {"mediaType": KIND, **config}, "layers": layers}
    manifest = _blob(blobs, json.dumps(document, sort_keys=True).encode())
    entry = {"mediaType": MANIFEST_KIND, **manifest, "annotations": {"org.opencontainers.image.ref.name": "guest"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(manifest["digest"])


def pull(reference: str, store: Store) -> Path:
    """Return the folder with the files of a guest in a registry.

    It is fetched once. Raises InnkeeperError.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InnkeeperError(
            f"{reference}: not a guest in a registry by its digest",
            hint="write oci:REGISTRY/NAME@sha256:... as it was printed when it was pushed",
        )

    def make(out: Path) -> None:
        with progress.step(f"fetching the guest {match['name']}"):
            layout = out / "layout"
            source = f"docker://{match['name']}@sha256:{match['digest']}"
            skopeo.copy_artefact(source, f"oci:{layout}:guest", out, f"{reference} cannot be fetched")
            _take(layout, match["digest"], out, reference)
            shutil.rmtree(layout)

    return store.step("published-guest", {"digest": match["digest"]}, make)


def _take(layout: Path, digest: str, out: Path, reference: str) -> None:
    """Move the files of a layout to `out`.

    Raises InnkeeperError unless they are those of the digest and of the manifest.
    """
    blobs = layout / "blobs" / "sha256"
    if not (blobs / digest).is_file() or hash_file(blobs / digest) != digest:
        raise InnkeeperError(f"{reference}: what the registry gave has another digest")
    document = json.loads((blobs / digest).read_text())
    if document.get("config", {}).get("mediaType") != KIND:
        raise InnkeeperError(f"{reference}: not a guest of `build --push`")
    for layer in document["layers"]:
        name, blob = layer.get("annotations", {}).get(TITLE, ""), layer["digest"].removeprefix("sha256:")
        if not re.fullmatch(r"\w[\w.-]*", name) or not re.fullmatch("[0-9a-f]{64}", blob) or hash_file(blobs / blob) != blob:
            raise InnkeeperError(f"{reference}: {name!r} is not the file that the manifest names")
        shutil.copyfile(blobs / blob, out / name)
    for name, entry in _manifest(out)["outputs"].items():
        if not (out / name).is_file() or hash_file(out / name) != entry["sha256"]:
            raise InnkeeperError(f"{reference}: {name} is not the file of its {MANIFEST}")


def boot_files(reference: str, store: Store | None = None) -> BootFiles:
    """Return a guest in a registry for a VM. Raises InnkeeperError."""
    folder = pull(reference, store or Store(paths.store_root()))
    manifest = _manifest(folder)
    kernel = manifest["kernel"]
    target = TARGETS[manifest.get("architecture", X86_64.name)]
    image = "bzImage" if kernel["from"] != OURS else "vmlinux" if target.boots_elf else Path(target.image).name
    needed = {"rootfs.erofs", image} - set(manifest["outputs"])
    if needed:
        raise InnkeeperError(f"{reference}: it has no {' and no '.join(sorted(needed))}", hint="build it with the outputs kernel and root")
    is_debians = kernel["from"] == DEBIAN
    return BootFiles(
        kernel=folder / image,
        rootfs=folder / "rootfs.erofs",
        kernel_from=f"{kernel['from']} {kernel.get('version', '')}".strip(),
        kernel_is_ours=kernel["from"] == OURS,
        kernel_lacks=kernel.get("lacks", {}),
        initrd=folder / "modules.initrd" if is_debians else None,
        parameters=(*kernel.get("parameters", ()), *manifest.get("parameters", ())),
        machine_type="q35" if is_debians else target.machine_type,
    )


def artifacts(reference: str) -> Artifacts:
    """Return a guest in a registry as `build` returns it, for an installation.

    Raises InnkeeperError if it lacks a file.
    """
    folder = pull(reference, Store(paths.store_root()))
    names = {"rootfs": "rootfs.erofs", "disk": "innkeeper.img", "initrd": "innkeeper.initrd", "verity": "verity.toml", "manifest": MANIFEST}
    files = {name: folder / names.get(name, name) for name in Artifacts.__dataclass_fields__}
    if missing := sorted(path.name for path in files.values() if not path.is_file()):
        raise InnkeeperError(f"{reference}: it has no {', '.join(missing)}", hint="build it with all outputs, and with our kernel")
    return Artifacts(**files)


def variant(reference: str) -> str:
    """Return the variant of a guest in a registry. Raises InnkeeperError."""
    return str(_manifest(pull(reference, Store(paths.store_root())))["variant"])


def architecture(reference: str) -> str:
    """Return the architecture of a guest in a registry, or an empty string for x86-64.

    Raises InnkeeperError.
    """
    return str(_manifest(pull(reference, Store(paths.store_root()))).get("architecture", ""))


def _manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return document


def _blob(blobs: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}
