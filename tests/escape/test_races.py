"""Directories that change while they are used: a container with another's root or volume exchanges folders and links in it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.image import defaults
from innkeeper.wire.pb import agent_pb2
from tests.escape.documents import Document, bind, without_mount
from tests.escape.ground import Ground
from tests.escape.ground_guest import Guest
from tests.escape.seen import Seen

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

PROC_ROUNDS = 300
NOT_WRITTEN = frozenset(("EROFS", "EACCES", "EPERM", "ENOENT", "ELOOP", "ENOTDIR", "EISDIR"))


@contextmanager
def exchanging(ground: Ground, folder: Path, one: str, other: str) -> Iterator[None]:
    """A container whose volume is `folder` exchanges two entries of it."""
    doc = ground.document("exchange", f"/volume/{one}", f"/volume/{other}")
    doc["mounts"].append(bind(ground.inner(folder), "/volume"))
    with ground.running(doc) as id:
        yield
        seen = ground.finish(id, id)
    assert int(seen.values("exchanged")[f"/volume/{one}"]) > 0


def race(ground: Ground, doc: Document, rounds: int) -> "Counter[str]":
    """Run the victim again and again; how often it was refused, and how often it ran. What it saw is looked at by `correct`."""
    outcomes: Counter[str] = Counter()
    for _ in range(ground.rounds(rounds)):
        seen = ground.attempt(doc)
        outcomes["refused" if isinstance(seen, RpcError) else "ran"] += 1
        if isinstance(seen, Seen):
            correct(seen)
    return outcomes


def correct(seen: Seen) -> None:
    """Nothing that steers the machine could be written, nothing of the canary was seen."""
    assert {answer.answer for answer in seen.all("write")} <= NOT_WRITTEN, seen
    assert "canary" not in "".join(answer.value for answer in seen.answers), seen


@pytest.mark.escape("E07", "E15", "E16")
@pytest.mark.parametrize("target", ["/etc", "/volume", "other"])
def test_proc_is_exchanged_for_a_link_while_it_is_mounted(ground: Ground, target: str) -> None:
    """Wherever the procfs is in the end, its masks and read-only parts are on it; or the container is refused."""
    root = ground.make_root(f"raced-proc-{target.strip('/')}")
    (root / "other").symlink_to(target)
    if target == "other":
        (root / "other").unlink()
        (root / "other").mkdir()
    places = ("/proc", "/other", "/etc", "/volume")
    steering = [f"{place}/sys/kernel/core_pattern=core" for place in places]
    doc = ground.document("write", *steering, "+", "read", *[f"{place}/kcore" for place in places], root=root)
    with exchanging(ground, root, "proc", "other"):
        outcomes = race(ground, doc, PROC_ROUNDS)
        doc["process"]["apparmorProfile"] = "no-such-profile"
        with pytest.raises(RpcError):
            ground.run(doc)
    assert sum(outcomes.values()) == ground.rounds(PROC_ROUNDS)


@pytest.mark.escape("E08", "E09")
@pytest.mark.parametrize("target", ["/", "/etc", "canary"])
def test_a_mount_point_is_exchanged_for_a_link_while_it_is_mounted(ground: Ground, target: str, request: pytest.FixtureRequest) -> None:
    """Below a volume that the attacker has too. What is mounted stays in the container; nothing is made outside."""
    share = ground.outside / "shares" / f"raced-{target.strip('/') or 'root'}"
    (share / "place/inner").mkdir(parents=True)
    (share / "link").symlink_to(f"{ground.inner(ground.canary)}/open" if target == "canary" else target)
    doc = ground.document("list", "/", "+", "stat", "/payload")
    doc["mounts"] += [
        bind(ground.inner(share), "/volume"),
        defaults.mount("/volume/place/inner", "tmpfs", "tmpfs"),
        defaults.mount("/volume/place/made", "tmpfs", "tmpfs"),
        bind(ground.inner(ground.plain / "etc/passwd"), "/volume/place/file"),
    ]
    with exchanging(ground, share, "place", "link"):
        outcomes = race(ground, doc, 2000 if request.config.getoption("--long") else 250)
    assert sum(outcomes.values()) > 0


@pytest.mark.escape("E12", "E14")
def test_dev_is_exchanged_for_a_link_while_devices_are_made(ground: Ground) -> None:
    root = ground.make_root("raced-dev")
    (root / "other").symlink_to(f"{ground.inner(ground.canary)}/open")
    doc = without_mount(ground.document("list", "/dev", root=root), "/dev")
    doc["linux"]["devices"] = [{"path": "/dev/made", "type": "c", "major": 1, "minor": 3}]
    doc["linux"]["maskedPaths"] = []
    with exchanging(ground, root, "dev", "other"):
        race(ground, doc, 200)


@pytest.mark.escape("E10")
@pytest.mark.vm
def test_a_volume_is_exchanged_for_a_link_while_it_is_opened(inside: Guest) -> None:
    """Below the directory that the host shares with a guest: what the link leads to is never what is mounted."""
    folder = inside.outside / "shares" / "raced-source"
    (folder / "place").mkdir(parents=True)
    (folder / "link").symlink_to("/")
    doc = inside.document("list", "/volume")
    doc["mounts"].append(bind(f"{inside.inner(folder)}/place", "/volume"))
    with exchanging(inside, folder, "place", "link"):
        for _ in range(40):
            seen = inside.attempt(doc)
            if isinstance(seen, Seen):
                assert seen.values("list") == {"/volume": ""}


@pytest.mark.escape("E35")
@pytest.mark.parametrize("level", ["itself", "above"])
def test_a_storage_is_exchanged_for_a_link_while_it_is_taken_down(ground: Ground, level: str) -> None:
    """The mount goes, wherever it is then; what the link leads to stays. The fixture sees both.

    A round is worth something only where the link was not met first: a few rounds may all be refused, then it goes on until one is not.
    """
    folder = ground.outside / "shares" / f"raced-storage-{level}"
    (folder / "place/inner").mkdir(parents=True)
    (folder / "source").mkdir()
    (folder / "link").symlink_to(f"{ground.inner(ground.canary)}/open")
    point = f"{ground.inner(folder)}/place" + ("/inner" if level == "above" else "")
    storage = agent_pb2.Storage(driver="bind", source=f"{ground.inner(folder)}/source", fstype="bind", mount_point=point)
    mounted, rounds = 0, ground.rounds(300)
    with exchanging(ground, folder, "place", "link"):
        for done in range(100 * rounds):
            if mounted and done >= rounds:
                break
            try:
                id = ground.create(ground.document("hold"), storages=[storage])
            except RpcError as refusal:
                assert not refusal.lost
                continue
            mounted += 1
            ground.agent.remove_container(id)
            assert (ground.canary / "open/inner").is_dir()
    assert mounted, "the race was never run"


@pytest.mark.escape("E35")
def test_a_root_is_exchanged_for_a_link_while_its_container_is_removed(ground: Ground) -> None:
    folder = ground.outside / "roots" / "raced-roots"
    folder.mkdir()
    root = ground.make_root("raced-roots/root")
    (folder / "link").symlink_to(ground.inner(ground.canary))
    with exchanging(ground, folder, "root", "link"):
        for _ in range(ground.rounds(200)):
            seen = ground.attempt(ground.document("walk-up", "secret", root=root))
            if isinstance(seen, Seen):
                assert seen.all("found above") == []
