"""What an image may have in it: configuration, files that look like a runtime's, account files that are none."""

import os
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.image import Image, ImageConfig, RunOptions
from innkeeper.image.run_plan import plan_run
from tests.escape.documents import ROOT
from tests.escape.target import Target

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


@pytest.mark.escape("E37", "E45")
def test_an_images_configuration_steers_nothing() -> None:
    """Its labels are no annotations, its environment none of the runtime's, its user and volumes are not paths or flags of this machine."""
    labels = {"io.katacontainers.config.hypervisor.path": "/evil", "run.oci.handler": "krun", "io.podman.annotations.seccomp": "unconfined"}
    hostile = ImageConfig(labels=labels, env=("LD_PRELOAD=/evil.so", "INNKEEPER_CACHE=/evil", "PATH=/evil"), exposed_ports=("22/tcp",))
    documents = []
    for config in (ImageConfig(), hostile):
        image = Image("test", "sha256:" + "0" * 64, config, Path("image.erofs"), None, None)
        plan = plan_run(image, RunOptions(args=["/bin/true"]), "0123456789abcdef")
        assert (plan.shares, plan.forwards) == ((), ())
        plan.document["process"].pop("env")  # type: ignore[attr-defined]  # the container's own, as the image says
        documents.append(plan.document)
    assert documents[0] == documents[1]
    for volume in ("/../x", "relative", "/", "/a/../.."):
        image = Image("test", "sha256:" + "0" * 64, ImageConfig(volumes=(volume,)), Path("image.erofs"), None, None)
        try:
            plan = plan_run(image, RunOptions(args=["/bin/true"], read_only=True), "0123456789abcdef")
        except InnkeeperError:
            continue
        sources = [str(mount["source"]) for mount in plan.document["mounts"]]  # type: ignore[attr-defined]
        assert not [source for source in sources if ".." in source.split("/")]


@pytest.mark.escape("E45")
def test_no_file_of_an_image_steers_the_agent(target: Target) -> None:
    root = target.make_root("configured")
    secret = f"{target.inner(target.canary)}/secret"
    for name in (
        ".krun_config.json",
        ".krun_vm.json",
        ".agent",
        ".agent.json",
        ".innkeeper.json",
        "config.json",
        ".dockerenv",
        "run.oci.json",
    ):
        (root / name).symlink_to(secret)
    (root / "etc/innkeeper").mkdir()
    (root / "etc/innkeeper/config.json").write_text('{"seccomp": "unconfined", "capabilities": "all"}')
    (root / "etc/ld.so.preload").write_text("/evil.so\n")
    verbs = ("identity", "+", "sockets", "38", "+", "env")
    assert target.attack(ROOT, *verbs, root=root).answers == target.attack(ROOT, *verbs).answers


PASSWDS = (
    "a link to the outside", "a link to an endless device", "a link to itself", "a pipe", "a directory", "of a gigabyte",
    "a line of a megabyte", "no text",
)  # fmt: skip


def make_passwd(file: Path, kind: str, canary: str) -> None:
    """What an image may have for its accounts."""
    links = {"a link to the outside": f"{canary}/secret", "a link to an endless device": "/dev/zero", "a link to itself": "passwd"}
    if kind in links:
        file.symlink_to(links[kind])
    elif kind == "a pipe":
        os.mkfifo(file)
    elif kind == "a directory":
        file.mkdir()
    elif kind == "of a gigabyte":
        file.touch()
        os.truncate(file, 1 << 30)
    elif kind == "a line of a megabyte":
        file.write_bytes(b"x" * (1 << 20) + b":x:0:0::/home:/bin/sh\n")
    else:
        file.write_bytes(bytes(range(256)) * 64 + b"\nroot:x:0:0::/a\xffb:/bin/sh\n")


@pytest.mark.escape("E40")
@pytest.mark.parametrize("kind", PASSWDS)
def test_the_images_passwd_is_read_inside_its_root(target: Target, kind: str) -> None:
    """Bounded, without waiting, for the one thing that the agent wants of it: the home directory."""
    root = target.make_root(f"passwd-{kind.replace(' ', '-')}")
    (root / "etc/passwd").unlink()
    make_passwd(root / "etc/passwd", kind, target.inner(target.canary))
    before = target.resident()
    report = target.attack(ROOT, "env", root=root)
    home = [answer.value for answer in report.all("environment") if answer.value.startswith("HOME=")]
    assert home == ["HOME=/a\u00ffb" if kind == "no text" else "HOME=/"]
    assert target.resident() - before < 8 << 10
