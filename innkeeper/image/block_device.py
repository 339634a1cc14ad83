"""Turn an image reference into a block device in the cache.

An image's id is the sha256 of its config, which lists the digests of its uncompressed layers. So
the same id means the same content, whatever the transport. Each image has a folder `<id>-<format>`
below <cache>/images:

    image.erofs    the merged tree
    image.json     the config, and /etc/passwd and /etc/group from the tree

A file `pin-...` records the id that a reference by digest stands for on this host, so that the next
run needs no request to a registry.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from innkeeper import files, paths, progress, skopeo
from innkeeper.errors import InnkeeperError
from innkeeper.image import archive
from innkeeper.image import reference as references
from innkeeper.image.config import ARCHITECTURES, ImageConfig, parse_config

if TYPE_CHECKING:
    from innkeeper.image.tree import Inode

FORMAT = "v3"
"""Version of the device format, part of the folder's name.

It changes when the same image would give a different device, so that older cache entries are not
used.
"""
ACCOUNTS_MAX = 1 << 20
"""Bytes of the largest /etc/passwd or /etc/group to read."""


@dataclass(frozen=True)
class Image:
    """An image in the cache.

    `id` is `sha256:...`. `passwd` and `group` are None if the image has no such file, or an
    unusable one. `volumes` maps each volume of the config to its folder in the tree with links
    resolved, or to None if the tree has no such folder.
    """

    reference: str
    id: str
    config: ImageConfig
    erofs: Path
    passwd: bytes | None
    group: bytes | None
    volumes: Mapping[str, str | None] = field(default_factory=dict)


def resolve(reference: str, architecture: str = "") -> Image:
    """Find the image `reference`; fetch and convert it unless it is in the cache.

    `architecture` is the guest's, as uname(2) has it, or empty for this host's. Raises
    InnkeeperError, which names the reference.
    """
    root = paths.images_root()
    root.mkdir(parents=True, exist_ok=True)
    pin = root / f"pin-{files.sha256(f'{reference}{architecture}'.encode())}"
    if "@sha256:" in reference and pin.exists():
        image_id = pin.read_text()
        if (folder := root / f"{image_id}-{FORMAT}").exists():
            return _load(reference, image_id, folder, architecture)
    source, image_id = _locate_archive(reference)
    if not image_id:
        with _scratch(root) as scratch:
            source, image_id = _locate(reference, scratch, architecture)
    folder = root / f"{image_id}-{FORMAT}"
    if not folder.exists():
        # Another process may be converting the same image: wait for it, then look again.
        with files.locked(root / f"{image_id}.lock", work=f"fetches image {reference}"):
            if not folder.exists():
                with progress.step(f"fetching image {reference}"):
                    _build(reference, source, image_id, folder, architecture)
    if source.startswith("docker://") and "@sha256:" in reference:
        with files.replaced(pin) as part:
            part.write_text(image_id)
    return _load(reference, image_id, folder, architecture)


def _locate_archive(reference: str) -> tuple[str, str]:
    """Return as `_locate` what can be said without skopeo and its folder, or ("", "")."""
    config = archive.peek_config(reference)
    return (reference, files.sha256(config)) if config else ("", "")


def _locate(reference: str, scratch: Path, architecture: str) -> tuple[str, str]:
    """Return (skopeo source, image id).

    A name without a transport is looked up in local containers-storage first, then in each
    registry.
    """
    if references.has_transport(reference):
        source = references.check_transport(reference)
        return source, files.sha256(skopeo.inspect_config(source, scratch, ARCHITECTURES.get(architecture, "")))
    references.check_name(reference)
    if local := skopeo.local_image_id(reference):
        return f"containers-storage:@{local}", local
    failures = []
    for source in references.remote_candidates(reference):
        try:
            return source, files.sha256(skopeo.inspect_config(source, scratch, ARCHITECTURES.get(architecture, "")))
        except InnkeeperError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise InnkeeperError(f"image {reference} not found in any configured registry: " + "; ".join(error.message for error in failures))


def _build(reference: str, source: str, image_id: str, folder: Path, architecture: str) -> None:
    """Create the cache entry `folder`.

    The caller holds the lock of the entry, so the remains of an interrupted build can be removed.
    The folder gets its final name last, after its content is synced: an entry with that name is
    complete.
    """
    from innkeeper.image import erofs, layer, tree  # for an image that is not in the cache yet

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        blobs = partial / "blobs"
        skopeo.copy_to_dir(source, blobs, partial, ARCHITECTURES.get(architecture, ""))
        config, layers = _read_manifest(reference, blobs, image_id, architecture)
        root = tree.new_directory()
        for path in layers:
            root = tree.merge(root, layer.read_layer(path, root))
        tree.link_mtab(root)
        erofs.write_erofs(root, partial / "image.erofs", uuid=bytes.fromhex(image_id)[:16])
        record: dict[str, object] = {
            "reference": reference,
            "config": config,
            "volumes": _volume_folders(root, parse_config(config, architecture).volumes),
        }
        record |= {name: _account_file(root, name) for name in ("passwd", "group")}
        _write_synced(partial / "image.json", json.dumps(record, indent=1).encode())
        shutil.rmtree(blobs)
        partial.rename(folder)
        files.sync_folder(folder.parent)
    except OSError as error:
        raise InnkeeperError(f"cannot make the device of image {reference}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_manifest(reference: str, blobs: Path, image_id: str, architecture: str) -> tuple[Mapping[str, object], list[Path]]:
    """Return the config and the layers, lowest first."""
    try:
        manifest = json.loads((blobs / "manifest.json").read_bytes())
        if manifest["schemaVersion"] != 2:
            hint = "pull and push it again with a current docker or podman, which writes schema 2"
            raise InnkeeperError(f"image {reference}: manifests of schema {manifest['schemaVersion']} are not supported", hint=hint)
        for layer in manifest["layers"]:
            _check_media_type(reference, str(layer.get("mediaType", "")))
        layers = [_hex(layer["digest"]) for layer in manifest["layers"]]
        raw = (blobs / _hex(manifest["config"]["digest"])).read_bytes()
        config = json.loads(raw)
        listed = [_hex(digest) for digest in config["rootfs"]["diff_ids"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InnkeeperError(f"image {reference}: not an image that can be run: its manifest or config lacks {error}") from error
    if files.sha256(raw) != image_id:
        raise InnkeeperError(f"image {reference} changed while it was fetched", hint="run it again")
    if layers != listed:
        raise InnkeeperError(f"image {reference}: its layers are not those that its config lists")
    parse_config(config, architecture)  # refuses an image that cannot be run before the work is done
    return config, [blobs / layer for layer in layers]


def _check_media_type(reference: str, kind: str) -> None:
    """Refuse a layer that is not a tar of a file system: an artifact or an encrypted layer.

    skopeo has already removed any compression.
    """
    if kind and (".tar" not in kind or "encrypted" in kind):
        raise InnkeeperError(f"image {reference}: a layer of media type {kind} holds no file system that can be read")


def _account_file(root: "Inode", name: str) -> str | None:
    """Return the text of /etc/`name` in the tree, or None.

    The size is bounded, and links are followed inside the image: it is never a device, a fifo or
    the host's file.
    """
    from innkeeper.image.tree import lookup, read

    node = lookup(root, f"/etc/{name}".encode())
    data = read(node, ACCOUNTS_MAX) if node is not None else None
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _volume_folders(root: "Inode", volumes: Sequence[str]) -> dict[str, str | None]:
    """Return the folder of each volume, with its links resolved inside the image.

    They are resolved here so that in the guest no link of the image can redirect a mount.
    """
    from innkeeper.image.tree import real_directory

    found = {volume: real_directory(root, volume.encode()) for volume in volumes}
    return {volume: None if path is None else path.decode("utf-8", "surrogateescape") for volume, path in found.items()}


def _load(reference: str, image_id: str, folder: Path, architecture: str) -> Image:
    record = json.loads((folder / "image.json").read_bytes())
    passwd, group = (None if record[name] is None else record[name].encode("utf-8", "surrogateescape") for name in ("passwd", "group"))
    config = parse_config(record["config"], architecture)
    return Image(
        reference=reference,
        id=f"sha256:{image_id}",
        config=config,
        erofs=folder / "image.erofs",
        passwd=passwd,
        group=group,
        volumes=record["volumes"],
    )


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """Context manager: make a folder for skopeo's temporary files.

    Folders of processes that were killed are removed first. A folder in use is locked by its user,
    and the lock ends with the process. Process ids would not do: a cache may be shared by
    containers, each with process ids of its own. The lock around the sweep protects a folder that
    was just made and is not locked yet.
    """
    with files.locked(root / ".scratch.lock"):
        for old in root.glob(".scratch-*"):
            try:
                fd = files.lock(old, flags=os.O_RDONLY, wait=False)
            except (FileNotFoundError, BlockingIOError):
                continue
            shutil.rmtree(old, ignore_errors=True)
            os.close(fd)
        folder = root / f".scratch-{os.urandom(8).hex()}"
        folder.mkdir(mode=0o700)
        fd = files.lock(folder, flags=os.O_RDONLY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _hex(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InnkeeperError(f"digest {digest} is not a sha256 digest")
    return value
