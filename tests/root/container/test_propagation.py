"""The root's propagation, whatever that of the mount it is on: nothing of a container appears outside, whichever step fails."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container import create
from agent.container.container import Container
from agent.container.init import child
from agent.errors import Refused, StepFailed
from tests.needs import needs
from tests.root.container_helpers import Box, Document, busybox_root, execute, whole_life

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "busybox", "mount", "nsenter")]

PARENTS = ("shared", "slave", "private")
# rootfsPropagation -> what mountinfo says of / and, with r, of a mount below, inside
WORDS = {
    "": (r"(master:\d+)?", ""),
    "shared": (r"shared:\d+", ""),
    "rshared": (r"shared:\d+", r"shared:\d+"),
    "slave": (r"(master:\d+)?", ""),
    "rslave": (r"(master:\d+)?", ""),
    "private": ("", ""),
    "rprivate": ("", ""),
    "unbindable": ("unbindable", ""),
    "runbindable": ("unbindable", "unbindable"),
}


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


class OwnMount:
    """A file system of the test's own with a root on it, mounted with a propagation of its own."""

    def __init__(self, path: Path, box: Box) -> None:
        self.path = path
        self.root = path / "rootfs"
        self.box = Box(self.root, box.host, box.id)

    def mounts(self) -> list[str]:
        """Return the mounts of this machine below it."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return sorted(line.split(" - ")[0].partition(" ")[2] for line in lines if f" {self.path}" in line)

    def document(self, word: str, *args: str) -> Document:
        """A document with a `rootfsPropagation`."""
        doc = self.box.document(*args)
        if word:
            doc["linux"]["rootfsPropagation"] = word
        return doc


@pytest.fixture(params=PARENTS)
def own_mount(request: pytest.FixtureRequest, box: Box, tmp_path: Path) -> Iterator[OwnMount]:
    places = [tmp_path / name for name in ("master", "own")]
    for place in places:
        place.mkdir()
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", places[0])
    try:
        mount("--make-private" if request.param == "private" else "--make-shared", places[0])
        mount("--bind", places[0], places[1])
        try:
            if request.param == "slave":
                mount("--make-slave", places[1])
            busybox_root(places[1] / "rootfs")
            yield OwnMount(places[1], box)
        finally:
            subprocess.run(["umount", "-R", places[1]], check=True)
    finally:
        subprocess.run(["umount", "-R", places[0]], check=True)


def inside(text: str, place: str) -> str:
    """The propagation that a mountinfo shows of a place."""
    line = next(line for line in text.splitlines() if line.split()[4] == place)
    return " ".join(line.partition(" - ")[0].split()[6:])


@pytest.mark.parametrize("word", WORDS)
def test_it_is_applied_and_nothing_appears_outside(own_mount: OwnMount, word: str) -> None:
    before = own_mount.mounts()

    async def look(container: Container) -> tuple[str, list[str]]:
        return (await execute(container, "cat", "/proc/self/mountinfo")).stdout, own_mount.mounts()

    text, during = own_mount.box.during(own_mount.document(word, "sleep", "9"), look)
    root, below = WORDS[word]
    assert re.fullmatch(root, inside(text, "/")), text
    assert re.fullmatch(below, inside(text, "/dev/shm")), text
    assert (during, own_mount.mounts()) == (before, before)


STEPS = [name for name, _, _ in create.STEPS] + [name for name, _, _ in child.INIT_STEPS]


@pytest.mark.parametrize("word", ["rshared", "slave"])
def test_nothing_is_left_whatever_step_fails(own_mount: OwnMount, word: str) -> None:
    """With hooks, for their steps to be taken, and a mount of somebody's left in the root."""
    doc = own_mount.document(word, "true")
    doc["hooks"] = {kind: [{"path": "/bin/true"}] for kind in ("createRuntime", "createContainer", "poststop")}
    mount("-t", "tmpfs", "left", own_mount.root / "home")
    before = own_mount.mounts()
    for step in STEPS:
        with pytest.raises(StepFailed, match="failure injected") as caught:
            loop.run(whole_life(own_mount.box, doc, step))
        assert caught.value.step == step
        assert own_mount.mounts() == before, step


@pytest.mark.parametrize("word", ["", "slave", "rshared", "private"])
def test_what_is_mounted_outside_later_comes_in_where_it_is_to(own_mount: OwnMount, word: str) -> None:
    """By the one who runs the container: into one that is a slave of a mount that others are peers of."""
    comes = word in ("", "slave") and bool(re.search(r"shared:|master:", " ".join(own_mount.mounts())))

    async def look(container: Container) -> str:
        mount("-t", "tmpfs", "later", own_mount.path.parent / "master/rootfs/home")
        return (await execute(container, "cat", "/proc/self/mountinfo")).stdout

    text = own_mount.box.during(own_mount.document(word, "sleep", "9"), look)
    assert (" /home " in text) == comes


@pytest.mark.parametrize("word", ["", "shared", "private"])
def test_a_hook_mounts_by_the_roots_path(own_mount: OwnMount, tmp_path: Path, word: str) -> None:
    """As hooks for devices do: the one of the runtime enters the mount namespace, the one of the container is there."""
    enter = 'read -r state; pid=${state#*\\"pid\\": }; pid=${pid%%[,\\}]*}; nsenter --mount --target $pid '
    doc = own_mount.document(word, "sh", "-c", "grep -c hook /proc/self/mounts; touch /home/x /tmp/x")
    make = f"mount -t tmpfs hook {own_mount.root}"
    doc["hooks"] = {
        "createRuntime": [_hook(f"{enter}{make}/home")],
        "createContainer": [_hook(f"{make}/tmp")],
    }
    before = own_mount.mounts()
    done = own_mount.box.run(doc)
    assert (done.stdout, done.stderr, done.status) == ("2\n", "", 0)
    assert own_mount.mounts() == before
    assert not [*own_mount.root.glob("home/x"), *own_mount.root.glob("tmp/x")]


def _hook(script: str) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}


def test_a_root_on_an_unbindable_mount_is_refused_by_name(own_mount: OwnMount) -> None:
    mount("--make-unbindable", own_mount.path)
    with pytest.raises(Refused, match=r"root.path: .*rootfs: Invalid argument"):
        own_mount.box.run(own_mount.document("", "true"))
