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
from tests.escape.report import Report
from tests.escape.target import Target
from tests.escape.target_guest import Guest

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

PROC_ROUNDS = 300
NOT_WRITTEN = frozenset(("EROFS", "EACCES", "EPERM", "ENOENT", "ELOOP", "ENOTDIR", "EISDIR"))


@contextmanager
def exchanging(target: Target, folder: Path, one: str, other: str) -> Iterator[None]:
    """A container whose volume is `folder` exchanges two entries of it."""
    doc = target.document("exchange", f"/volume/{one}", f"/volume/{other}")
    doc["mounts"].append(bind(target.inner(folder), "/volume"))
    with target.running(doc) as id:
        yield
        report = target.finish(id, id)
    assert int(report.values("exchanged")[f"/volume/{one}"]) > 0


def race(target: Target, doc: Document, rounds: int) -> "Counter[str]":
    """Run the victim again and again; how often it was refused, and how often it ran. What it saw is looked at by `correct`."""
    outcomes: Counter[str] = Counter()
    for _ in range(target.rounds(rounds)):
        report = target.attempt(doc)
        outcomes["refused" if isinstance(report, RpcError) else "ran"] += 1
        if isinstance(report, Report):
            correct(report)
    return outcomes


def correct(report: Report) -> None:
    """Nothing that steers the machine could be written, nothing of the canary was seen."""
    assert {answer.answer for answer in report.all("write")} <= NOT_WRITTEN, report
    assert "canary" not in "".join(answer.value for answer in report.answers), report


@pytest.mark.escape("E07", "E15", "E16")
@pytest.mark.parametrize("destination", ["/etc", "/volume", "other"])
def test_proc_is_exchanged_for_a_link_while_it_is_mounted(target: Target, destination: str) -> None:
    """Wherever the procfs is in the end, its masks and read-only parts are on it; or the container is refused."""
    root = target.make_root(f"raced-proc-{destination.strip('/')}")
    (root / "other").symlink_to(destination)
    if destination == "other":
        (root / "other").unlink()
        (root / "other").mkdir()
    places = ("/proc", "/other", "/etc", "/volume")
    steering = [f"{place}/sys/kernel/core_pattern=core" for place in places]
    doc = target.document("write", *steering, "+", "read", *[f"{place}/kcore" for place in places], root=root)
    with exchanging(target, root, "proc", "other"):
        outcomes = race(target, doc, PROC_ROUNDS)
        doc["process"]["apparmorProfile"] = "no-such-profile"
        with pytest.raises(RpcError):
            target.run(doc)
    assert sum(outcomes.values()) == target.rounds(PROC_ROUNDS)


@pytest.mark.escape("E08", "E09")
@pytest.mark.parametrize("destination", ["/", "/etc", "canary"])
def test_a_mount_point_is_exchanged_for_a_link_while_it_is_mounted(
    target: Target, destination: str, request: pytest.FixtureRequest
) -> None:
    """Below a volume that the attacker has too. What is mounted stays in the container; nothing is made outside."""
    share = target.outside / "shares" / f"raced-{destination.strip('/') or 'root'}"
    (share / "place/inner").mkdir(parents=True)
    (share / "link").symlink_to(f"{target.inner(target.canary)}/open" if destination == "canary" else destination)
    doc = target.document("list", "/", "+", "stat", "/payload")
    doc["mounts"] += [
        bind(target.inner(share), "/volume"),
        defaults.mount("/volume/place/inner", "tmpfs", "tmpfs"),
        defaults.mount("/volume/place/made", "tmpfs", "tmpfs"),
        bind(target.inner(target.plain / "etc/passwd"), "/volume/place/file"),
    ]
    with exchanging(target, share, "place", "link"):
        outcomes = race(target, doc, 2000 if request.config.getoption("--long") else 250)
    assert sum(outcomes.values()) > 0


@pytest.mark.escape("E12", "E14")
def test_dev_is_exchanged_for_a_link_while_devices_are_made(target: Target) -> None:
    root = target.make_root("raced-dev")
    (root / "other").symlink_to(f"{target.inner(target.canary)}/open")
    doc = without_mount(target.document("list", "/dev", root=root), "/dev")
    doc["linux"]["devices"] = [{"path": "/dev/made", "type": "c", "major": 1, "minor": 3}]
    doc["linux"]["maskedPaths"] = []
    with exchanging(target, root, "dev", "other"):
        race(target, doc, 200)


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
            report = inside.attempt(doc)
            if isinstance(report, Report):
                assert report.values("list") == {"/volume": ""}


@pytest.mark.escape("E35")
@pytest.mark.parametrize("level", ["itself", "above"])
def test_a_storage_is_exchanged_for_a_link_while_it_is_taken_down(target: Target, level: str) -> None:
    """The mount goes, wherever it is then; what the link leads to stays. The fixture sees both.

    A round is worth something only where the link was not met first: a few rounds may all be refused, then it goes on until one is not.
    """
    folder = target.outside / "shares" / f"raced-storage-{level}"
    (folder / "place/inner").mkdir(parents=True)
    (folder / "source").mkdir()
    (folder / "link").symlink_to(f"{target.inner(target.canary)}/open")
    point = f"{target.inner(folder)}/place" + ("/inner" if level == "above" else "")
    storage = agent_pb2.Storage(driver="bind", source=f"{target.inner(folder)}/source", fstype="bind", mount_point=point)
    mounted, rounds = 0, target.rounds(300)
    with exchanging(target, folder, "place", "link"):
        for done in range(100 * rounds):
            if mounted and done >= rounds:
                break
            try:
                id = target.create(target.document("hold"), storages=[storage])
            except RpcError as refusal:
                assert not refusal.lost
                continue
            mounted += 1
            target.agent.remove_container(id)
            assert (target.canary / "open/inner").is_dir()
    assert mounted, "the race was never run"


@pytest.mark.escape("E35")
def test_a_root_is_exchanged_for_a_link_while_its_container_is_removed(target: Target) -> None:
    folder = target.outside / "roots" / "raced-roots"
    folder.mkdir()
    root = target.make_root("raced-roots/root")
    (folder / "link").symlink_to(target.inner(target.canary))
    with exchanging(target, folder, "root", "link"):
        for _ in range(target.rounds(200)):
            report = target.attempt(target.document("walk-up", "secret", root=root))
            if isinstance(report, Report):
                assert report.all("found above") == []
