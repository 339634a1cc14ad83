"""One image by every kind of reference: the same device, made once, from whatever transport."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.errors import InnkeeperError
from innkeeper.image import resolve
from tests import images
from tests.eventually import retry
from tests.needs import needs
from tests.paths import ROOT

pytestmark = [pytest.mark.root, needs("buildah", "skopeo", "busybox")]


@pytest.fixture(scope="module")
def archive() -> str:
    return images.busybox_image()


@pytest.fixture
def cache(archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; the archive stays in the shared one."""
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """containers-storage of the test's own, found through storage.conf as the user's would be."""
    config = tmp_path / "storage.conf"
    config.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(config))
    return tmp_path / "graph"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    settings = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}, "http": {"addr": address}}
    config.write_text(json.dumps(settings))
    log = (tmp_path / "registry.log").open("wb")
    server = subprocess.Popen([programs.require("docker-registry"), "serve", config], stdout=log, stderr=log)

    def alive() -> None:
        assert server.poll() is None, (tmp_path / "registry.log").read_text()

    try:
        retry(lambda: urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close(), OSError, alive)
        yield address
    finally:
        server.kill()
        server.wait()
        log.close()


SCRATCH_LOCK = ".scratch.lock"


def skopeo(*arguments: str) -> None:
    subprocess.run(["skopeo", *arguments], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive", "oci", "dir"])
def test_same_device_from_each_transport(transport: str, archive: str, cache: Path, tmp_path: Path) -> None:
    copied = f"{transport}:{tmp_path}/copy" + (":name/of:it" if transport in ("docker-archive", "oci") else "")
    skopeo("copy", archive, copied)
    image = resolve(copied)
    assert image.config.cmd == ("/bin/sh",)
    assert image.passwd is not None and b"guest:x:1000" in image.passwd
    again = resolve(archive)
    if transport not in ("docker-archive", "dir"):  # other manifest formats may rewrite the config, which is the identity
        assert again.id == image.id
    assert again.erofs.stat().st_size == image.erofs.stat().st_size
    left = {entry.name for entry in (cache / "images").iterdir()} - {SCRATCH_LOCK}
    assert left == {name for each in (image, again) for name in (each.erofs.parent.name, f"{each.id[7:]}.lock")}


@pytest.mark.parametrize("algorithm", ["gzip", "zstd"])
def test_compressed_layers(algorithm: str, archive: str, cache: Path, tmp_path: Path) -> None:
    skopeo("copy", "--dest-compress-format", algorithm, archive, f"oci:{tmp_path}/copy")
    layers = [blob for blob in (tmp_path / "copy/blobs/sha256").iterdir() if blob.read_bytes()[:2] in (b"\x1f\x8b", b"\x28\xb5")]
    assert len(layers) == 1
    image = resolve(f"oci:{tmp_path}/copy")
    assert image.id == resolve(archive).id


def test_image_of_a_list(archive: str, cache: Path, tmp_path: Path) -> None:
    """A list of images, one for each platform: this machine's is taken."""
    skopeo("copy", archive, f"oci:{tmp_path}/copy:x")
    index = json.loads((tmp_path / "copy/index.json").read_text())
    ours = {**index["manifests"][0], "platform": {"os": "linux", "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64"}}
    ours.pop("annotations")
    other = {**ours, "digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": "s390x"}}
    kind = "application/vnd.oci.image.index.v1+json"
    nested = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [other, ours]}).encode()
    digest = hashlib.sha256(nested).hexdigest()
    (tmp_path / "copy/blobs/sha256" / digest).write_bytes(nested)
    index["manifests"] = [{"mediaType": kind, "digest": f"sha256:{digest}", "size": len(nested)}]
    (tmp_path / "copy/index.json").write_text(json.dumps(index))
    subprocess.run(["tar", "-C", tmp_path / "copy", "-cf", tmp_path / "list.tar", "."], check=True)
    for reference in (f"oci:{tmp_path}/copy", f"oci-archive:{tmp_path}/list.tar"):
        assert resolve(reference).id == resolve(archive).id


def test_tampered_layer_is_refused(archive: str, cache: Path, tmp_path: Path) -> None:
    skopeo("copy", archive, f"dir:{tmp_path}/copy")
    manifest = json.loads((tmp_path / "copy/manifest.json").read_text())
    layer = tmp_path / "copy" / manifest["layers"][0]["digest"].removeprefix("sha256:")
    data = bytearray(layer.read_bytes())
    data[-2000] ^= 1
    layer.write_bytes(data)
    with pytest.raises(InnkeeperError, match="cannot copy image dir:"):
        resolve(f"dir:{tmp_path}/copy")
    assert [name for name in os.listdir(cache / "images") if not name.endswith(".lock")] == []


@needs("docker-registry")
def test_registry_of_this_machine(registry: str, archive: str, cache: Path, tmp_path: Path) -> None:
    skopeo("copy", "--dest-tls-verify=false", archive, f"docker://{registry}/team/box:v1")
    image = resolve(f"docker://{registry}/team/box:v1")
    assert image.id == resolve(archive).id
    assert resolve(f"{registry}/team/box:v1").erofs == image.erofs
    with pytest.raises(InnkeeperError, match=r"team/box:v2 not found.*unknown"):
        resolve(f"docker://{registry}/team/box:v2")
    asked = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{registry}/team/box:v1"]
    digest = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    pinned = f"docker://{registry}/team/box@{digest}"
    assert resolve(pinned).id == image.id
    subprocess.run(["rm", "-rf", tmp_path / "registry"], check=True)
    with pytest.raises(InnkeeperError):
        resolve(f"docker://{registry}/team/box:v1")
    assert resolve(pinned).erofs == image.erofs  # a digest means the same for ever: nobody is asked again


@needs("docker-registry")
def test_short_name_through_configured_registries(
    registry: str, archive: str, cache: Path, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo("copy", "--dest-tls-verify=false", archive, f"docker://{registry}/library/box")
    config = tmp_path / "registries.conf"
    config.write_text(f'unqualified-search-registries = ["{registry}"]\n[aliases]\n"nick" = "{registry}/library/box"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(config))
    assert resolve("library/box").id == resolve(archive).id
    assert resolve("nick:latest").id == resolve(archive).id


def test_bare_name_prefers_local_storage(archive: str, cache: Path, storage: Path) -> None:
    skopeo("copy", archive, "containers-storage:localhost/mine:latest")
    expected = resolve(archive)
    for name in ("mine", "localhost/mine", "localhost/mine:latest", "containers-storage:localhost/mine"):
        assert resolve(name).id == expected.id


def test_two_at_once_make_it_once(archive: str, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(resolve, [archive] * 4))
    assert len({image.erofs for image in found}) == 1
    assert len({image.erofs.stat().st_ino for image in found}) == 1


def test_killed_while_making_leaves_nothing_finished(archive: str, cache: Path) -> None:
    program = f"""
import sys
from innkeeper.image import block_device, erofs
def stop(*_, **__):
    print("here", flush=True)
    sys.stdin.read()
erofs.write_erofs = stop
block_device.resolve({archive!r})
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        names = os.listdir(cache / "images")
        assert any(name.endswith(".partial") for name in names)
        child.send_signal(signal.SIGKILL)
    image = resolve(archive)
    assert image.erofs.exists()
    assert sorted(os.listdir(cache / "images")) == sorted([image.erofs.parent.name, f"{image.id[7:]}.lock"])


def test_scratch_of_another_pid_namespace_is_left_alone(cache: Path) -> None:
    """Containers that share a cache have the same process ids: a folder is another's as long as it is locked, and no longer."""
    scratch = "import sys, innkeeper.image.block_device as f\nwith f._scratch(f.paths.images_root()) as p: "
    hold = scratch + "print(p, flush=True); sys.stdin.read()"
    pass_by = scratch + "print(p)"
    (cache / "images").mkdir(parents=True)

    def argv(program: str) -> list[str]:
        return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", program]

    def sweep() -> None:
        done = subprocess.run(argv(pass_by), cwd=ROOT, capture_output=True, text=True, check=True)
        assert not Path(done.stdout.strip()).exists()

    with subprocess.Popen(argv(hold), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        held = Path(os.fsdecode(holder.stdout.readline().strip()))
        assert held.is_dir()
        sweep()
        assert held.is_dir()
        holder.kill()
        holder.wait()
        assert held.is_dir(), "nobody has cleaned yet"
        assert holder.stdout.read() == b""  # every process that held it has gone
    sweep()
    assert os.listdir(cache / "images") == [SCRATCH_LOCK]


def test_names_what_is_wrong(cache: Path, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InnkeeperError, match="no such file: /no/such"):
        resolve("oci-archive:/no/such")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(InnkeeperError, match="oci-archive:"):
        resolve(f"oci-archive:{tmp_path}/text")
    empty = tmp_path / "none.conf"
    empty.write_text("")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(empty))
    monkeypatch.setattr("innkeeper.image.reference._configuration_files", lambda: [empty])
    with pytest.raises(InnkeeperError, match="no registry is configured") as raised:
        resolve("nosuchimage")
    assert raised.value.hint is not None and "docker://docker.io/library/nosuchimage" in raised.value.hint
    for bad in ("UPPER", "a b", "-x", "x:", "a//b", "@sha256:1"):
        with pytest.raises(InnkeeperError, match="not a valid image name"):
            resolve(bad)
    assert [name for name in os.listdir(cache / "images") if not name.endswith(".lock")] == []
