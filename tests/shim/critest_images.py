"""The images that critest pulls, made here and served by a registry on this machine.

critest names them with registries on the internet. containerd asks this registry for every name
(`certs.d/_default`), so only the path within a registry is of importance. Each image is what critest
expects of the published one: busybox with its applets, users, a web server, a program with the setuid bit.
"""

import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from innkeeper import programs
from tests import images
from tests.eventually import eventually
from tests.image_helpers import ARCHITECTURE, Blob, Layout, file, layer, tar

Entry = tuple[tarfile.TarInfo, bytes]

SMALL, LARGE = "k8s-staging-cri-tools", "e2e-test-images"
"""Folders of critest's images in their registries."""
BUSYBOX = f"{LARGE}/busybox:1.29-2"
HOST_PORT = 12003
"""The port that critest expects the web server of a pod in the host's network at."""
SCRIPTS = {"ipcs": "cat /proc/sysvipc/shm", "pgrep": 'exec pidof "$1"'}
"""Programs that Debian's busybox does not have, as far as critest uses them."""
USERS = (
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
    "default-user:x:1000:1000::/home:/bin/sh\n"
)
GROUPS = "root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
EFFECTIVE_USER = """
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\\n", geteuid()); return 0; }
"""
FILES = {"test-image-1": "latest", "test-image-2": "latest", "test-image-3": "latest", "test-image-latest": "latest"}
"""Images that differ by one file, with their tags."""
IMAGE_USERS = {"uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004"}


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Context manager: Debian's registry on a free port, with critest's images. Yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yml"
    storage = f"{{filesystem: {{rootdirectory: {folder}/registry}}}}"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {storage}\nhttp: {{addr: {address}}}\n")
    with (folder / "registry.log").open("wb") as log:
        server = subprocess.Popen([programs.require("docker-registry"), "serve", config], stdout=log, stderr=log)
    try:
        eventually(lambda: _listens(address) or server.poll() is not None)
        assert server.poll() is None, (folder / "registry.log").read_text()
        _push_all(folder, address)
        yield address
    finally:
        server.terminate()
        server.wait()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as asked:
        return asked.connect_ex((host, int(port))) == 0


def _push_all(folder: Path, address: str) -> None:
    root = layer(tar(busybox_root()))

    def push(name: str, *files: Entry, **config: Any) -> None:
        layout = Layout()
        layers = [root, *([layer(tar(files))] if files else [])]
        built_for = {"os": "linux", "architecture": ARCHITECTURE}
        settings = {"Env": ["PATH=/bin"], "Cmd": ["sh"], **config}
        archive = folder / "pushed.tar"
        _copy(layout.save(archive, layout.add_image(layers, built_for, settings)), f"{address}/{name}")
        archive.unlink()

    push(BUSYBOX)
    push("pause:3.9", Cmd=["sleep", "1000000000"])
    for name, tag in FILES.items():
        push(f"{SMALL}/{name}:{tag}", file(name))
    for tag in ("1", "2", "3"):
        push(f"{SMALL}/test-image-tags:{tag}", file("same-image"))
    for tag in ("test", "all"):
        push(f"{SMALL}/test-image-tag:{tag}", file(tag))
    for kind, user in IMAGE_USERS.items():
        push(f"{SMALL}/test-image-user-{kind}:latest", User=user)
    push(f"{SMALL}/test-image-predefined-group:latest", User="1000")
    push(f"{SMALL}/hostnet-nginx-{ARCHITECTURE}:latest", *page(), Cmd=serve(HOST_PORT))
    push(f"{LARGE}/httpd:2.4.39-4", *page(), Cmd=serve(80))
    push(f"{LARGE}/nonewprivs:1.3", file("nnp", effective_user(folder), mode=0o4755), Cmd=["/nnp"])
    archive = folder / "nginx.tar"
    _copy(with_busybox_grep(images.nginx_image(), archive), f"{address}/{LARGE}/nginx:1.14-2")
    archive.unlink()


def _copy(reference: str, name: str) -> None:
    argv = [
        str(programs.require("skopeo")),
        "--insecure-policy",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        reference,
        f"docker://{name}",
    ]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "CONTAINERS_REGISTRIES_CONF": "/dev/null"})


def busybox_root() -> list[Entry]:
    """Return a root with busybox, a hard link for each applet, as the published image has them."""
    program = programs.require("busybox")
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    folders = {"bin": 0o755, "etc": 0o755, "home": 0o755, "root": 0o700, "tmp": 0o1777, "run": 0o755, "var": 0o755, "www": 0o755}
    made = [file(name, type=tarfile.DIRTYPE, mode=mode) for name, mode in folders.items()]
    made += [file("var/run", type=tarfile.SYMTYPE, linkname="../run")]
    made += [file("bin/busybox", program.read_bytes(), mode=0o755)]
    links = [name for name in applets if name not in ("busybox", *SCRIPTS)]
    made += [file(f"bin/{name}", type=tarfile.LNKTYPE, linkname="bin/busybox", mode=0o755) for name in links]
    made += [file(f"bin/{name}", f"#!/bin/sh\n{text}\n".encode(), mode=0o755) for name, text in SCRIPTS.items()]
    return [*made, file("etc/passwd", USERS.encode()), file("etc/group", GROUPS.encode())]


def page() -> Sequence[Entry]:
    """Return the files of a web server."""
    return [file("www/index.html", b"a page\n")]


def serve(port: int) -> Sequence[str]:
    """Return the command of a web server, which says what it is."""
    return ["sh", "-c", f"echo httpd serves; exec httpd -f -p {port} -h /www"]


def effective_user(folder: Path) -> bytes:
    """Return a program that prints its effective user."""
    source, program = folder / "nnp.c", folder / "nnp"
    source.write_text(EFFECTIVE_USER)
    subprocess.run([programs.require("gcc"), "-static", "-Os", "-o", program, source], check=True)
    return program.read_bytes()


def with_busybox_grep(reference: str, archive: Path) -> str:
    """Write an image with another `grep` than that of `reference`. Return its reference.

    critest takes what it writes to the standard error for a failure, and GNU's says there that a file is binary.
    """
    with tarfile.open(reference.partition(":")[2]) as tar_file:

        def read(digest: str) -> bytes:
            member = tar_file.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert member is not None
            return member.read()

        index = tar_file.extractfile("index.json")
        assert index is not None
        manifest = json.loads(read(json.loads(index.read())["manifests"][0]["digest"]))
        config = json.loads(read(manifest["config"]["digest"]))
        layers = zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
        blobs = [Blob(read(stored["digest"]), stored["mediaType"], diff_id) for stored, diff_id in layers]
    blobs.append(layer(tar([file("usr/local/bin/grep", programs.require("busybox").read_bytes(), mode=0o755)])))
    layout = Layout()
    built_for = {"os": "linux", "architecture": ARCHITECTURE}
    return layout.save(archive, layout.add_image(blobs, built_for, config["config"]))


def mirror(folder: Path, address: str) -> None:
    """Write what makes containerd ask the registry at `address` for every image, into `certs.d` of `folder`."""
    hosts = folder / "certs.d/_default/hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(f'server = "http://{address}"\n[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n')
