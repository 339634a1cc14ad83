"""Hostile images: links, files and mounts where a runtime expects /proc, /dev, a mount point or a working directory."""

from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.image import defaults
from innkeeper.wire.pb import agent_pb2
from tests.escape.documents import ROOT, USERNS, Document, bind, without_mount
from tests.escape.target import Target

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

PROC = "9fa0"
"""The magic number of procfs, as statfs(2) gives it."""


both = pytest.mark.parametrize("who", [ROOT, USERNS])


def refused(target: Target, doc: Document, match: str = ".") -> None:
    """The document is refused, before or while it is created."""
    with pytest.raises(RpcError, match=match):
        target.run(doc)


@pytest.mark.escape("E06")
@both
@pytest.mark.parametrize("destination", ["/proc", "/proc/", "//proc/.", "/proc/self", "/proc/self/attr", "/proc/sys/kernel", "proc/1"])
def test_nothing_is_mounted_over_proc(target: Target, who: str, destination: str) -> None:
    for entry in (defaults.mount(destination, "tmpfs", "tmpfs"), bind(target.inner(target.plain / "etc"), destination)):
        for position in (0, 1, 100):
            doc = target.document("statfs", "/proc", who=who)
            doc["mounts"].insert(position, dict(entry))
            refused(target, doc, "/proc")


@pytest.mark.escape("E06")
@both
@pytest.mark.parametrize("below", ["", "/self/attr", "/sys"])
def test_nothing_is_mounted_over_proc_through_a_link(target: Target, who: str, below: str) -> None:
    root = target.make_root(f"alias-of-proc{below.replace('/', '-')}-{who}")
    (root / "alias").symlink_to("proc")
    for entry in (defaults.mount(f"/alias{below}", "tmpfs", "tmpfs"), bind(target.inner(target.plain / "etc"), f"/alias{below}")):
        doc = target.document("statfs", "/proc", "/proc/self/attr", "/proc/sys", who=who, root=root)
        doc["mounts"].append(dict(entry))
        refused(target, doc)


@pytest.mark.escape("E06")
def test_only_a_procfs_is_bound_on_proc(target: Target) -> None:
    doc = without_mount(target.document("statfs", "/proc"), "/proc")
    doc["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    doc["mounts"].insert(0, bind("/proc/self", "/proc"))
    refused(target, doc, "procfs")
    doc["mounts"][0] = bind("/proc", "/proc")
    assert target.run(doc).values("statfs") == {"/proc": PROC}


LINKS = {"/proc": ("/other", "../../../proc", "self"), "/sys": (".", "/other", "/proc")}


@pytest.mark.escape("E07", "E16")
@both
@pytest.mark.parametrize(
    ("place", "destination"), [(place, destination) for place, destinations in LINKS.items() for destination in destinations]
)
def test_kernel_file_systems_are_not_mounted_where_a_link_leads(target: Target, who: str, place: str, destination: str) -> None:
    root = target.make_root(f"link{place.replace('/', '-')}{destination.replace('/', '-')}-{who}")
    (root / "other").mkdir()
    (root / place.strip("/")).rmdir()
    (root / place.strip("/")).symlink_to(destination)
    doc = target.document("statfs", place, who=who, root=root)
    refused(target, doc)
    doc["process"]["apparmorProfile"] = "some-profile"
    refused(target, doc)


OUTSIDE = "/../../../../../../../../../.."


def hostile_links(target: Target, root: Path) -> dict[str, str]:
    """Links of a root that point at the canary by different ways, and one that is longer than the kernel follows."""
    canary = target.inner(target.canary)
    links = {"dots": f"..{OUTSIDE}{canary}/open", "rooted": f"/..{OUTSIDE}{canary}/open", "absolute": f"{canary}/open", "up": "../../.."}
    for name, destination in links.items():
        (root / name).symlink_to(destination)
    for number in range(41):
        (root / f"chain{number}").symlink_to(f"chain{number + 1}")
    (root / "chain41").mkdir()
    return links


@pytest.mark.escape("E09")
@both
@pytest.mark.parametrize("kind", ["directory", "file", "cwd", "device"])
def test_what_is_made_is_made_inside_the_root(target: Target, who: str, kind: str) -> None:
    """The canary is looked at by the fixture; inside, what was asked for is where the link leads when / is the container's."""
    root = target.make_root(f"made-{kind}-{who}")
    if who == USERNS:
        for place in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            place.chmod(0o777)
    for name in [*hostile_links(target, root), "chain0"]:
        doc = target.document("stat", f"/{name}/made", who=who, root=root)
        place_in(doc, kind, f"/{name}/made", target.inner(target.plain / "etc/passwd"))
        report = target.attempt(doc)
        if name == "chain0":
            assert isinstance(report, RpcError), "more links than the kernel follows"
        elif not isinstance(report, RpcError):
            assert report.of("stat") == {f"/{name}/made": "ok"}


def place_in(doc: Document, kind: str, path: str, file: str) -> None:
    """Ask for something at `path`."""
    if kind == "directory":
        doc["mounts"].append(defaults.mount(path, "tmpfs", "tmpfs"))
    elif kind == "file":
        doc["mounts"].append(bind(file, path))
    elif kind == "cwd":
        doc["process"]["cwd"] = path
    else:
        doc["linux"]["devices"] = [{"path": path, "type": "c", "major": 1, "minor": 3}]


SHARED = "/run/kata-containers/shared/containers"


@pytest.mark.escape("E10")
@pytest.mark.parametrize("destination", ["/", "../../../../..", "../../../../etc", f"/proc/self/root{SHARED}"])
def test_a_link_in_a_share_is_neither_root_nor_volume(target: Target, destination: str) -> None:
    """A container with a writable volume leaves a link at the name that another's root or volume is to have."""
    name = f"{SHARED}/linked{destination.replace('/', '-')}"
    request = agent_pb2.CopyFileRequest(path=name, file_mode=0o120777, dir_mode=0o755, data=destination.encode())
    target.agent.copy_file(request)
    doc = target.document("list", "/")
    for path in (name, f"{name}/etc"):
        doc["root"]["path"] = path
        refused(target, doc)
        with_volume = target.document("list", "/volume")
        with_volume["mounts"].append(bind(path, "/volume"))
        refused(target, with_volume, "source")


@pytest.mark.escape("E10")
def test_a_link_within_a_share_is_followed(target: Target) -> None:
    """Configuration maps are links to a directory beside them."""
    for path, mode, data in (
        ("map/..one/key", 0o100644, b"value"),
        ("map/..data", 0o120777, b"..one"),
        ("map/key", 0o120777, b"..data/key"),
    ):
        target.agent.copy_file(
            agent_pb2.CopyFileRequest(path=f"{SHARED}/{path}", file_mode=mode, dir_mode=0o755, data=data, file_size=len(data))
        )
    doc = target.document("read", "/etc/passwd")
    doc["mounts"].append(bind(f"{SHARED}/map/key", "/etc/passwd"))
    assert target.run(doc).values("read") == {"/etc/passwd": "value"}


NULLS = ("link to core_pattern", "link to the canary", "file", "directory")


def make_null(null: Path, kind: str, canary: str) -> None:
    """What an image may have in the place of its null device."""
    if kind == "file":
        null.write_text("")
    elif kind == "directory":
        null.mkdir()
    else:
        null.symlink_to(f"{canary}/device" if kind.endswith("canary") else "/proc/sys/kernel/core_pattern")


@pytest.mark.escape("E11", "E13")
@pytest.mark.parametrize("kind", NULLS)
def test_only_the_null_device_masks(target: Target, kind: str) -> None:
    """Without a /dev of the specification's, and with a volume in its place."""
    root = target.make_root(f"null-{kind.replace(' ', '-')}")
    make_null(root / "dev/null", kind, target.inner(target.canary))
    refused(target, without_mount(target.document("read", "/proc/keys", root=root), "/dev"))
    doc = without_mount(target.document("read", "/proc/keys", root=target.make_root(f"null-plain-{kind.replace(' ', '-')}")), "/dev")
    doc["mounts"].append(bind(target.inner(root / "dev"), "/dev"))
    refused(target, doc, "/dev/null|is not the null device|symbolic")


CONSOLES = ("link to sysrq-trigger", "link to the canary", "directory", "pts is a link", "ptmx is a link")


def make_console(dev: Path, kind: str, canary: str) -> None:
    """What an image may have where a terminal is to be."""
    if kind == "directory":
        (dev / "console").mkdir()
    elif kind.startswith("link"):
        (dev / "console").symlink_to(f"{canary}/device" if kind.endswith("canary") else "/proc/sysrq-trigger")
    else:
        (dev / "pts").mkdir()
        (dev / "pts" / ("0" if kind.startswith("pts") else "ptmx")).symlink_to(f"{canary}/device")


@pytest.mark.escape("E12")
@pytest.mark.parametrize("kind", CONSOLES)
def test_the_console_follows_no_link(target: Target, kind: str) -> None:
    """A terminal in an image that has its own /dev, with a devpts on it and without."""
    root = target.make_root(f"console-{kind.replace(' ', '-')}")
    make_console(root / "dev", kind, target.inner(target.canary))
    doc = without_mount(target.document("stat", "/dev/console", root=root), "/dev")
    doc["process"]["terminal"] = True
    refused(target, doc)
    if not kind.startswith("pt"):
        devpts = next(mount for mount in defaults.mounts(1 << 20) if mount["type"] == "devpts")
        doc["mounts"].append(dict(devpts))
        refused(target, doc)


@pytest.mark.escape("E14")
@both
@pytest.mark.parametrize("destination", ["../../outside", "canary", "/etc", "proc"])
def test_no_device_is_made_where_dev_is_a_link(target: Target, who: str, destination: str) -> None:
    root = target.make_root(f"dev-link-{destination.replace('/', '-')}-{who}")
    (root / "dev").rmdir()
    (root / "dev").symlink_to(f"{target.inner(target.canary)}/open" if destination == "canary" else destination)
    outside = root.parent.parent / "outside"
    doc = without_mount(target.document("list", "/dev", who=who, root=root), "/dev")
    doc["linux"]["devices"] = [{"path": "/dev/made", "type": "c", "major": 1, "minor": 3}]
    refused(target, doc)
    assert not outside.exists()


@pytest.mark.escape("E11")
def test_masked_files_read_as_empty(target: Target) -> None:
    report = target.attack(ROOT, "read", "/proc/kcore", "/proc/keys", "/proc/timer_list", "+", "write", "/proc/keys=x")
    assert {report.values("read")[path] for path, answer in report.of("read").items() if answer == "ok"} == {""}
    assert set(report.of("write").values()) <= {"ok", "EACCES"}, "the null device takes what is written, and nothing becomes of it"
    assert target.attack(ROOT, "read", "/proc/keys").values("read") == {"/proc/keys": ""}
