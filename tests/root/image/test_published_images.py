"""Images as they are found: what docker and containerd run is taken, the rest is refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.image import resolve
from tests.image_helpers import ARCHITECTURE, LAYER, MANIFEST, Layout, file, layer, tar

pytestmark = pytest.mark.root

OURS = {"os": "linux", "architecture": ARCHITECTURE}
OTHER = {"os": "linux", "architecture": "s390x"}
NO_PLATFORM = {"os": "unknown", "architecture": "unknown"}
BASE = layer(tar([file("etc/passwd", b"app:x:7:7::/:\n"), file("data", b"x" * 9000)]))
Maker = Callable[[Layout], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def attestation(layout: Layout) -> dict[str, Any]:
    """What BuildKit puts beside each image."""
    statement = layer(b'{"_type": "x"}', media_type="application/vnd.in-toto+json")
    kind = {"vnd.docker.reference.type": "attestation-manifest"}
    return layout.add_image([statement], NO_PLATFORM, {}, platform=NO_PLATFORM, annotations=kind)


def foreign(layout: Layout) -> dict[str, Any]:
    return layout.add_image([], OTHER, {}, platform=OTHER)


def image(layout: Layout, **more: Any) -> dict[str, Any]:
    return layout.add_image([BASE], OURS, {}, **more)


@pytest.mark.parametrize("how", ["none", "gzip", "gzip-members", "zstd", "zstd-frames"])
def test_layers_in_any_compression(how: str, tmp_path: Path) -> None:
    """Several members or frames in a row are one stream (RFC 1952, 2.2; RFC 8878, 3.1): eStargz and zstd:chunked are such."""
    layout = Layout()
    stored = [layer(tar([file("first", b"1" * 9000), file("last", how.encode())]), how), layer(b"", how)]
    found = resolve(layout.save(tmp_path / "i.tar", layout.add_image(stored, OURS, {})))
    assert how.encode() in found.erofs.read_bytes()


def test_media_types_that_do_not_say_the_truth_or_are_old(tmp_path: Path) -> None:
    layout = Layout()
    stored = [
        layer(tar([file("a", b"really gzip")]), "gzip", LAYER),
        layer(tar([file("b", b"really plain")]), "none", LAYER + "+gzip"),
        layer(tar([file("c", b"not to be distributed")]), "gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
    ]
    data = resolve(layout.save(tmp_path / "i.tar", layout.add_image(stored, OURS, {}))).erofs.read_bytes()
    assert all(text in data for text in (b"really gzip", b"really plain", b"not to be distributed"))


@pytest.mark.parametrize(
    "make",
    [
        lambda layout: [layout.add_index([image(layout, platform=OURS), attestation(layout)])],
        lambda layout: [layout.add_index([attestation(layout), foreign(layout), image(layout, platform=OURS)])],
        lambda layout: [layout.add_index([image(layout)])],
        lambda layout: [image(layout, annotations={"org.opencontainers.image.ref.name": "latest", "com.example": "x"})],
        lambda layout: [layout.add_image([BASE, BASE], OURS, {})],
        lambda layout: [layout.add_image([BASE], {}, {})],
    ],
    ids=["attestation", "attestation first", "no platform", "annotations", "a layer twice", "config without a platform"],
)
def test_taken(make: Maker, tmp_path: Path) -> None:
    layout = Layout()
    assert resolve(layout.save(tmp_path / "i.tar", *make(layout))).passwd == b"app:x:7:7::/:\n"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda layout: [layout.add_image([BASE], OTHER, {})], "for linux/s390x, the guest is"),
        (lambda layout: [layout.add_index([foreign(layout)])], "not built for this machine's platform"),
        (lambda layout: [image(layout), attestation(layout)], "put the name of one behind a colon"),
        (lambda layout: [layout.add_index([layout.add_index([image(layout, platform=OURS)])])], "an index within an index"),
        (lambda layout: [layout.add_image([layer(b"{}", media_type="application/x-thing")], OURS, {})], "media type application/x-thing"),
        (lambda layout: [layout.add_image([layer(tar([]), media_type=LAYER + "+encrypted")], OURS, {})], "encrypted"),
        (lambda layout: [layout.add(json.dumps(_artifact(layout)).encode(), MANIFEST)], "lacks 'rootfs'"),
        (lambda layout: [_damaged(layout)], "cannot copy image"),
    ],
    ids=["platform", "index of another platform", "several", "index in an index", "artifact layer", "encrypted", "artifact", "damaged"],
)
def test_refused_with_a_reason(make: Maker, why: str, tmp_path: Path, cache: Path) -> None:
    layout = Layout()
    reference = layout.save(tmp_path / "i.tar", *make(layout))
    with pytest.raises(InnkeeperError) as refused:
        resolve(reference)
    assert why in f"{refused.value.message}; {refused.value.hint}"
    assert [entry.name for entry in (cache / "images").iterdir() if not entry.name.endswith(".lock")] == []


def _artifact(layout: Layout) -> dict[str, Any]:
    empty = layout.add(b"{}", "application/vnd.oci.empty.v1+json")
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": []}


def _damaged(layout: Layout) -> dict[str, Any]:
    made = image(layout)
    (digest,) = [digest for digest, data in layout.blobs.items() if data == BASE.data]
    layout.blobs[digest] = BASE.data[:-1] + b"!"
    return made
