"""`docker://`: an image in a real registry on this machine."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper import programs
from tests.eventually import eventually
from tests.images import busybox_image
from tests.needs import needs
from tests.vm.command import innkeeper, succeed

pytestmark = [pytest.mark.vm, needs("docker-registry", "skopeo")]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry on a free port of localhost, without TLS; localhost is trusted so by a registries.conf of ours."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    argv = [str(programs.require("docker-registry")), "serve", str(config)]
    served = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(port) or served.poll() is not None)
        assert served.poll() is None
        yield f"127.0.0.1:{port}"
    finally:
        served.terminate()
        served.wait()


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def test_an_image_runs_from_a_registry(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = tmp_path / "registries.conf"
    trust.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(trust))
    reference = f"docker://{registry}/small/box:one"
    push = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", busybox_image(), reference]
    subprocess.run(push, check=True, env=os.environ, stdout=subprocess.DEVNULL)
    monkeypatch.setenv("INNKEEPER_CACHE", str(_fresh_images(tmp_path)))
    assert succeed("run", "--rm", reference, "echo", "from the registry") == "from the registry\n"
    missing = innkeeper("run", "--rm", f"docker://{registry}/small/box:none", "true")
    assert missing.returncode == 125
    assert b"small/box:none" in missing.stderr


def _fresh_images(tmp_path: Path) -> Path:
    """A cache with the guest in it, but no image: nothing can come from there."""
    from innkeeper.paths import cache_root

    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("store", "kvm.json"):
        if (cache_root() / name).exists():
            (cache / name).symlink_to(cache_root() / name)
    return cache
