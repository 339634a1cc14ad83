"""Mounts beyond the plain ones: changed later, filled from below, with translated owners, and what stands in for a forbidden one."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from agent.container.container import Container
from agent.container.spec.document import parse_spec
from agent.errors import Refused, StepFailed
from tests.root.container_helpers import COUNT, FIRST, Box, Document, execute, open_parents, with_users

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


@pytest.fixture
def own(own_root: Path, box: Box) -> Box:
    """A box whose root the test may spoil."""
    return Box(own_root, box.host, "box")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to bind, with a mount that lies below it."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_text("text")
    return directory


def mountinfo(box: Box, doc: Document, destination: str) -> tuple[list[str], str, str, str]:
    """(per-mount options, propagation, filesystem, its options) of the last mount on a place, as seen inside."""
    doc["process"]["args"] = ["cat", "/proc/self/mountinfo"]
    found = None
    for line in box.run(doc).stdout.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if fields[4] == destination:
            found = sorted(fields[5].split(",")), " ".join(fields[6:]), after.split()[0], after.split()[2]
    assert found is not None, f"nothing is mounted on {destination}"
    return found


def test_remount_changes_the_mount_and_keeps_what_it_does_not_name(box: Box) -> None:
    doc = box.document()
    doc["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["nosuid", "noatime"]},
        {"destination": "/tmp", "type": "none", "source": "none", "options": ["remount", "bind", "ro"]},
    ]
    options, _, _, superblock = mountinfo(box, doc, "/tmp")
    assert options == ["noatime", "nosuid", "ro"]
    assert "rw" in superblock.split(",")


def test_remount_with_words_for_the_filesystem(box: Box) -> None:
    doc = box.document()
    doc["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["size=1m"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["remount", "size=2m", "nodev"]},
    ]
    options, _, _, superblock = mountinfo(box, doc, "/tmp")
    assert "nodev" in options
    assert "size=2048k" in superblock.split(",")


def test_remount_of_a_place_without_a_mount(box: Box) -> None:
    doc = box.document("true")
    doc["mounts"].append({"destination": "/home", "type": "none", "options": ["remount", "ro"]})
    with pytest.raises(StepFailed, match="place mounts: /home: mount_setattr"):
        box.run(doc)


@pytest.mark.parametrize(("word", "shown"), [("shared", "shared:"), ("slave", ""), ("private", ""), ("unbindable", "unbindable")])
def test_propagation(box: Box, word: str, shown: str) -> None:
    doc = box.document()
    doc["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "t", "options": [word]})
    propagation = mountinfo(box, doc, "/tmp")[1]
    assert propagation.startswith(shown) if shown else propagation == ""


@pytest.mark.parametrize(
    ("word", "root", "below"),
    [
        ("shared", r"shared:\d+( master:\d+)?", ""),
        ("rshared", r"shared:\d+( master:\d+)?", r"shared:\d+.*"),
        ("unbindable", "unbindable", ""),
        ("private", r"(master:\d+)?", ""),
        ("rslave", r"(master:\d+)?", ""),
    ],
)
def test_propagation_of_the_root(own: Box, word: str, root: str, below: str) -> None:
    """Of the mount / itself; with r of those below as well. Nothing goes out: what is shared is shared among the container's own."""
    doc = own.document()
    doc["linux"]["rootfsPropagation"] = word
    assert re.fullmatch(root, mountinfo(own, doc, "/")[1])
    assert re.fullmatch(below, mountinfo(own, doc, "/dev/shm")[1])


@pytest.mark.parametrize("word", ["rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime", "rnosymfollow", "rstrictatime"])
def test_recursive_attributes_reach_every_mount_below(box: Box, word: str) -> None:
    doc = box.document()
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": "/dev", "options": ["rbind", word]})
    for place in ("/d", "/d/shm"):
        options = mountinfo(box, doc, place)[0]
        if word == "rstrictatime":
            assert not {"relatime", "noatime"} & set(options)
        else:
            assert word[1:] in options, place


def test_recursive_attributes_take_away_as_well(box: Box, source: Path) -> None:
    doc = box.document()
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": "/proc", "options": ["rbind", "rnosuid", "rsuid", "rnoexec"]})
    options = mountinfo(box, doc, "/d")[0]
    assert "nosuid" not in options and "noexec" in options


@pytest.mark.parametrize("words", [["sync"], ["dirsync"], ["lazytime"]])
def test_superblock_words(box: Box, words: list[str]) -> None:
    doc = box.document()
    doc["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "t", "options": words})
    assert set(words) <= set(mountinfo(box, doc, "/tmp")[3].split(","))


def test_superblock_words_for_the_default_are_taken(box: Box) -> None:
    doc = box.document()
    words = ["defaults", "async", "nolazytime", "nomand", "loud", "silent"]
    doc["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "t", "options": words})
    assert mountinfo(box, doc, "/tmp")[2] == "tmpfs"


def test_copy_up_fills_a_tmpfs_with_what_it_covers(own: Box) -> None:
    data = own.root / "data"
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/er/file").write_bytes(b"x" * 3_000_000)
    (data / "deep/er/file").chmod(0o640)
    os.chown(data / "deep/er/file", 7, 8)
    os.utime(data / "deep/er/file", (1000, 2000))
    (data / "deep").chmod(0o2750)
    (data / "link").symlink_to("/nowhere/else")
    os.mkfifo(data / "fifo", 0o611)
    script = "cd /data; stat -c '%n %F %a %u:%g %s %Y' deep deep/er/file fifo; readlink link; touch deep/new; ls -d /data/deep/new"
    doc = own.document("sh", "-c", f"{script}; stat -f -c %T .")
    doc["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "mode=755"]})
    directory, file, fifo, link, new, filesystem = own.run(doc).stdout.splitlines()
    assert directory.startswith("deep directory 2750 0:0 ")
    assert file == "deep/er/file regular file 640 7:8 3000000 2000"
    assert fifo.startswith("fifo fifo 611 ")
    assert (link, new, filesystem) == ("/nowhere/else", "/data/deep/new", "tmpfs")
    assert not (data / "deep/new").exists()


def test_copy_up_follows_no_link_and_enters_no_mount(own: Box, source: Path) -> None:
    (own.root / "data").mkdir()
    (own.root / "data/out").symlink_to(source)
    (own.root / "data/mnt").mkdir()
    doc = own.document("sh", "-c", "readlink /data/out; ls -A /data/mnt")
    doc["mounts"] += [
        {"destination": "/data/mnt", "type": "bind", "source": str(source)},
        {"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]},
    ]
    assert own.run(doc).stdout.splitlines() == [str(source)]


def test_copy_up_into_a_read_only_tmpfs_and_one_that_is_too_small(own: Box) -> None:
    (own.root / "data").mkdir()
    (own.root / "data/file").write_bytes(b"y" * 100_000)
    doc = own.document("sh", "-c", "wc -c < /data/file; touch /data/x")
    doc["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "ro"]})
    result = own.run(doc)
    assert (result.stdout.split(), "Read-only" in result.stderr) == (["100000"], True)
    doc["mounts"][-1]["options"] = ["tmpcopyup", "size=8k"]
    with pytest.raises(StepFailed, match=r"place mounts: .*No space left"):
        own.run(doc)


def mapping(inner: int, outer: int, size: int = 1) -> Document:
    entries = [{"containerID": inner, "hostID": outer, "size": size}]
    return {"uidMappings": entries, "gidMappings": entries}


def test_owners_are_translated_on_a_bind(box: Box, source: Path) -> None:
    os.chown(source, 1234, 1235)
    os.chown(source / "file", 1234, 1235)
    doc = box.document("sh", "-c", "stat -c %u:%g /d/file; touch /d/new; echo $?")
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": str(source), **mapping(1234, 0, 2)})
    assert box.run(doc).stdout.split() == ["0:1", "0"]
    assert (source / "new").stat().st_uid == 1234  # made by user 0 inside: its owner on disk is the mapped one


def test_owners_are_translated_by_the_containers_own_mappings(own_root: Path, box: Box, source: Path) -> None:
    """idmap without mappings: what belongs to user 0 outside belongs to user 0 inside."""
    open_parents(own_root)
    doc = box.document("sh", "-c", "stat -c %u:%g /d/file; touch /d/new; cat /proc/self/uid_map")
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": str(source), "options": ["bind", "idmap"]})
    doc["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        doc["linux"][key] = [{"containerID": 0, "hostID": FIRST, "size": COUNT}]
    owner, *map_ = box.run(doc).stdout.split()
    assert (owner, map_) == ("0:0", ["0", str(FIRST), str(COUNT)])
    assert (source / "new").stat().st_uid == 0


def test_owners_below_are_translated_with_ridmap_only(box: Box, source: Path) -> None:
    """/dev/shm, a mount below /dev."""
    doc = box.document("sh", "-c", "stat -c %u /d/null /d/shm")
    for word, expected in (("ridmap", ["5", "5"]), ("idmap", ["5", "0"])):
        mount = {"destination": "/d", "type": "bind", "source": "/dev", "options": ["rbind", word], **mapping(0, 5)}
        doc["mounts"] = [*box.document()["mounts"], mount]
        try:
            assert box.run(doc).stdout.split() == expected, word
        except Refused as refused:
            # Every filesystem below has to know translation, and the kernel's devtmpfs may not.
            assert refused.field == "mounts[7].uidMappings"


def test_a_filesystem_that_cannot_translate_owners_is_refused(box: Box) -> None:
    doc = box.document("true")
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": "/proc", **mapping(0, 5)})
    with pytest.raises(Refused, match=r"mounts\[7\].uidMappings: /proc: mount_setattr"):
        box.run(doc)


def test_paths_relative_to_the_bundle(own: Box, tmp_path: Path, source: Path) -> None:
    doc = own.document("cat", "/d/file")
    doc["root"]["path"] = os.path.relpath(own.root, tmp_path)
    doc["mounts"].append({"destination": "/d", "type": "bind", "source": "source"})
    spec = parse_spec(doc, bundle=str(tmp_path))
    assert (spec.root_path, spec.mounts[-1].source) == (str(own.root), str(source))
    doc["root"]["path"], doc["mounts"][-1]["source"] = spec.root_path, spec.mounts[-1].source
    assert own.run(doc).stdout == "text"


def test_sysfs_in_a_user_namespace_without_a_network_namespace_of_its_own(own_root: Path, box: Box) -> None:
    doc = box.document("sleep", "9")
    doc["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup", "user")]
    for key in ("uidMappings", "gidMappings"):
        doc["linux"][key] = [{"containerID": 0, "hostID": FIRST, "size": COUNT}]

    async def use(container: Container) -> Any:
        return container.warnings, await execute(container, "sh", "-c", "ls -d /sys/class; touch /sys/x; stat -f -c %T /sys")

    warnings, result = box.during(doc, use)
    assert result.stdout.split() == ["/sys/class", "sysfs"]
    assert "Read-only file system" in result.stderr
    assert warnings == ["mounts[5]: no network namespace of the container's own, the guest's sysfs is bound read-only"]


def test_a_cgroup_mount_is_read_only_unless_asked(box: Box) -> None:
    doc = box.document()
    doc["mounts"][-1]["options"] = ["nosuid"]
    assert "ro" in mountinfo(box, doc, "/sys/fs/cgroup")[0]
    doc["mounts"][-1]["options"] = ["nosuid", "rw"]
    assert "rw" in mountinfo(box, doc, "/sys/fs/cgroup")[0]


def test_without_a_cgroup_namespace_only_its_own_group_is_mounted(box: Box) -> None:
    doc = box.document("sh", "-c", "cat /sys/fs/cgroup/cgroup.procs; ls -d /sys/fs/cgroup/*/; mkdir /sys/fs/cgroup/x")
    doc["linux"]["namespaces"] = [entry for entry in doc["linux"]["namespaces"] if entry["type"] != "cgroup"]
    result = box.run(doc)
    assert "1" in result.stdout.split()
    assert "/sys/fs/cgroup/box" not in result.stdout
    assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("place", ["/link", "/link/self", "/link/sys/kernel"])
def test_nothing_is_mounted_into_proc_through_a_link(own: Box, source: Path, place: str) -> None:
    (own.root / "link").symlink_to("proc")
    for mount in (
        {"destination": place, "type": "tmpfs", "source": "t"},
        {"destination": place, "type": "bind", "source": str(source)},
    ):
        doc = own.document("true")
        doc["mounts"].append(mount)
        with pytest.raises(StepFailed, match="is in a procfs"):
            own.run(doc)


@pytest.mark.parametrize("place", ["/proc/uptime", "/proc/cpuinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid"])
def test_a_file_over_one_of_procs(box: Box, source: Path, place: str) -> None:
    """Where the kernel keeps no mount there, as on recent ones for net/dev, this is said."""
    doc = box.document("cat", place)
    doc["mounts"].append({"destination": place, "type": "bind", "source": str(source / "file")})
    try:
        assert box.run(doc).stdout == "text"
    except StepFailed as error:
        assert place in ("/proc/net/dev", "/proc/sys/kernel/ns_last_pid")
        assert "keeps no mount" in error.detail or not os.path.exists(place)


def test_the_root_of_a_procfs_may_be_bound_on_proc(box: Box, source: Path) -> None:
    doc = box.document("sh", "-c", "stat -f -c %T /proc")
    doc["mounts"][0] = {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}
    assert box.run(doc).stdout.strip() == "proc"
    doc["mounts"][0]["source"] = str(source)
    with pytest.raises(StepFailed, match="only the root of a procfs"):
        box.run(doc)


def _chain(root: Path, source: Path) -> list[Document]:
    """A mount, one from below it, and a file of that: each is there once the one before it is."""
    return [
        {"destination": "/first", "type": "bind", "source": str(source), "options": ["bind"]},
        {"destination": "/second", "type": "bind", "source": str(root / "first/below"), "options": ["rbind", "ro"]},
        {"destination": "/third", "type": "bind", "source": str(root / "second/file"), "options": ["bind"]},
    ]


@pytest.mark.parametrize("users", [False, True], ids=["native", "users"])
def test_a_source_that_an_earlier_mount_of_the_list_brings(request: pytest.FixtureRequest, source: Path, users: bool) -> None:
    """Mounts are done in their order, also where what is mounted covers something of the root's own."""
    box = request.getfixturevalue("mapped" if users else "own")
    (source / "below").mkdir()
    (source / "below/file").write_text("brought\n")
    (box.root / "first/below").mkdir(parents=True)
    (box.root / "first/below/file").write_text("covered\n")
    doc = box.document("cat", "/third", "/second/file")
    if users:
        with_users(doc)
    doc["mounts"] += _chain(box.root, source)
    done = box.run(doc)
    assert (done.stdout, done.stderr) == ("brought\nbrought\n", "")
    doc["mounts"][-1]["source"] = str(box.root / "second/none")
    with pytest.raises(StepFailed, match=r"place mounts: .*second/none: .*No such file"):
        box.run(doc)


def test_a_source_in_the_root_is_resolved_in_it(own: Box, source: Path) -> None:
    """A link of the image's leads nowhere else, whatever it says."""
    (source / "link").symlink_to("/etc/passwd")
    doc = own.document("cat", "/seen")
    doc["mounts"] += [
        {"destination": "/first", "type": "bind", "source": str(source), "options": ["bind"]},
        {"destination": "/seen", "type": "bind", "source": str(own.root / "first/link"), "options": ["bind"]},
    ]
    assert own.run(doc).stdout == (own.root / "etc/passwd").read_text()


def test_a_tmpfs_has_the_mode_of_what_it_covers(own: Box) -> None:
    """As with runc: a mode that is asked for wins, and where nothing was the kernel's 1777 holds."""
    (own.root / "run").mkdir(mode=0o750)
    (own.root / "link").symlink_to("run")
    doc = own.document("stat", "-c", "%n %a %u", "/run", "/tmp", "/new", "/asked")
    for place, options in (("/link", []), ("/tmp", []), ("/new", []), ("/asked", ["mode=700", "uid=5"])):
        doc["mounts"].append({"destination": place, "type": "tmpfs", "source": "t", "options": options})
    assert own.run(doc).stdout.splitlines() == ["/run 750 0", "/tmp 1777 0", "/new 1777 0", "/asked 700 5"]


def test_a_file_is_bound_where_a_dangling_link_points(own: Box, source: Path) -> None:
    """The missing target is made inside the root, whatever the link says, and both names show the file."""
    outside = source.parent / "outside"
    links = {
        "etc/resolv.conf": "../run/systemd/resolve/stub.conf",
        "absolute": "/made/here",
        "chain": "etc/second",
        "etc/second": "../../../../../../../third",
        "escape": str(outside),
    }
    for name, target in links.items():
        (own.root / name).symlink_to(target)
    doc = own.document("cat", *[f"/{name}" for name in links], "/run/systemd/resolve/stub.conf", "/made/here", "/third", str(outside))
    for name in ("etc/resolv.conf", "absolute", "chain", "escape"):
        doc["mounts"].append({"destination": f"/{name}", "type": "bind", "source": str(source / "file")})
    assert own.run(doc).stdout == "text" * 9
    assert not outside.exists()
    for name, target in links.items():
        assert os.readlink(own.root / name) == target


def test_a_file_is_not_bound_on_links_that_lead_nowhere(own: Box, source: Path) -> None:
    (own.root / "a").symlink_to("b")
    (own.root / "b").symlink_to("a")
    doc = own.document("true")
    doc["mounts"].append({"destination": "/a", "type": "bind", "source": str(source / "file")})
    with pytest.raises(StepFailed, match="symbolic links"):
        own.run(doc)
