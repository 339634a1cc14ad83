"""Control groups of the command's containers: which hierarchy, who may be in a group before, what a container makes below its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Refused
from agent.oci import bundle as bundles
from tests.eventually import eventually
from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime
from tests.paths import ROOT
from tests.root.container_helpers import cgroup2

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox", "mount", "unshare")]


@pytest.fixture
def nested(runtime: Runtime, bundle: Bundle) -> Iterator[Runtime]:
    """A running container `a` that has moved its processes to groups below its own and handed controllers on."""
    bundle.document["mounts"][-1]["options"] = ["nosuid", "noexec", "nodev", "rw"]
    script = (
        "cd /sys/fs/cgroup; mkdir -p init more/below; echo 1 >init/cgroup.procs;"
        " for one in $(cat cgroup.controllers); do echo +$one >cgroup.subtree_control; done;"
        " sleep 1001 & echo $! >more/below/cgroup.procs; touch /tmp/ready; exec sleep 1000"
    )
    bundle.document["mounts"].append({"destination": "/tmp", "type": "bind", "source": "out", "options": ["bind"]})
    (bundle.path / "out").mkdir()
    runtime("run", "-d", "-b", bundle.sh(script).save("a"), "a")
    eventually((bundle.path / "out/ready").exists)
    yield runtime
    runtime("delete", "-f", "a")
    assert not runtime.group_of("a").exists()


def test_groups_below_go_with_the_container(nested: Runtime) -> None:
    handed_on = (nested.group_of("a") / "cgroup.subtree_control").read_text().split()  # else the container's own takes processes still
    assert nested("exec", "a", "grep", "^0::", "/proc/self/cgroup") == ("0::/init\n" if handed_on else "0::/\n")
    assert len(json.loads(nested("ps", "-f", "json", "a"))) == 2
    nested("delete", "--force", "a")
    assert not nested.group_of("a").exists()


def test_groups_below_that_are_frozen_go_as_well(nested: Runtime) -> None:
    (nested.group_of("a") / "more/cgroup.freeze").write_text("1")
    nested("delete", "--force", "a")
    assert not nested.group_of("a").exists()


def test_exec_into_a_group_below(nested: Runtime) -> None:
    show = ["grep", "^0::", "/proc/self/cgroup"]
    assert nested("exec", "--cgroup", "more/below", "a", *show) == "0::/more/below\n"
    assert nested("exec", "--cgroup=/init", "a", *show) == "0::/init\n"
    for wrong in ("none", "..", "more/../..", "init/cgroup.procs"):
        assert "no group below the container's" in nested.refuses("exec", "--cgroup", wrong, "a", "true", status=255)
    assert "cgroup v1's" in nested.refuses("exec", "--cgroup", "cpu:init", "a", "true", status=255)
    if (nested.group_of("a") / "cgroup.subtree_control").read_text().split():
        # The container's own takes no process then, and no other is looked for.
        assert "Device or resource busy" in nested.refuses("exec", "--cgroup", "/", "a", "true", status=255)


def test_all_that_are_left_in_groups_below(runtime: Runtime, bundle: Bundle) -> None:
    """Without a pid namespace what is below lives on when the first process ends: a signal for all reaches it."""
    linux = bundle.document["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]
    runtime("run", "-d", "-b", bundle.sh("sleep 1001 & exec sleep 1000").save("a"), "a")
    eventually(lambda: len(json.loads(runtime("ps", "-f", "json", "a"))) == 2)
    first = runtime.state("a")["pid"]
    (other,) = set(json.loads(runtime("ps", "-f", "json", "a"))) - {first}
    below = runtime.group_of("a") / "below"
    below.mkdir()
    (below / "cgroup.procs").write_text(str(other))
    os.kill(first, signal.SIGKILL)
    runtime.until("a", "stopped")
    runtime("kill", "--all", "a", "KILL")
    eventually(lambda: "populated 0" in (runtime.group_of("a") / "cgroup.events").read_text())
    runtime("delete", "a")


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_group_in_use_is_refused_by_name(runtime: Runtime, bundle: Bundle, verb: str) -> None:
    """One with processes, in it or below; a frozen one; one below a frozen one, in which nothing would ever get on."""
    group = runtime.group_of("a")
    (group / "below").mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as other:
        for place in (group / "below", group):
            (place / "cgroup.procs").write_text(str(other.pid))
            assert f"cgroup {group} has processes already" in runtime.refuses(verb, "-b", bundle.save("a"), "a")
            assert other.poll() is None
        other.kill()
    (group / "below").rmdir()
    for frozen in (group, group.parent):
        (frozen / "cgroup.freeze").write_text("1")
        assert f"cgroup {group} is frozen" in runtime.refuses(verb, "-b", bundle.path, "a")
        (frozen / "cgroup.freeze").write_text("0")
        if group.exists():
            group.rmdir()
    assert runtime("list", "-q") == ""
    assert runtime("run", "-b", bundle.path, "a") == ""


def test_exec_waits_in_a_paused_container(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    runtime("pause", "a")
    argv = runtime.argv("exec", "--ignore-paused", "a", "echo", "in")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as waiting:
        eventually(lambda: len((runtime.group_of("a") / "cgroup.procs").read_text().split()) == 2)
        assert waiting.poll() is None
        assert "paused" in runtime.refuses("exec", "a", "true", status=255)
        runtime("resume", "a")
        assert waiting.communicate()[0] == "in\n"
        assert waiting.returncode == 0
    assert runtime("exec", "--ignore-paused", "a", "echo", "in") == "in\n"
    runtime("delete", "-f", "a")


def test_the_hierarchy_is_the_one_at_its_usual_place(tmp_path: Path) -> None:
    """Not what is mounted later, as a container's is; without the usual place one that is the whole hierarchy."""
    place = cgroup2()
    assert bundles.cgroup_mount() == place
    (tmp_path / "later").mkdir()
    (tmp_path / "part").mkdir()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from agent.oci import bundle\nbundle.CGROUP_MOUNTPOINTS = tuple(sys.argv[2:])\nprint(bundle.cgroup_mount())"
    )
    python = f'{sys.executable} -c "$1" {ROOT}'
    moves = (
        f"mkdir {place}/innkeeper-part-{os.getpid()}; mount --bind {place}/innkeeper-part-{os.getpid()} {tmp_path}/part;"
        f"mount --bind {place} {tmp_path}/later; {python} {place}; {python}; umount -l {place};"
        f" {python}; umount {tmp_path}/later; {python} 2>&1 | tail -1; umount {tmp_path}/part"
    )
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", moves, "sh", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    (place / f"innkeeper-part-{os.getpid()}").rmdir()
    lines = done.stdout.splitlines()
    assert lines[:3] == [str(place), str(place), str(tmp_path / "later")], (done.stdout, done.stderr)
    assert Refused.__name__ in lines[3]


def test_an_id_may_be_any_name_of_ours(runtime: Runtime, bundle: Bundle) -> None:
    """Of a verb, a file of the state, a process: an id is only looked up among ids."""
    for id in ("exec", "exec_", "list", "run", "restore", "state.json", "start.sock", "0"):
        runtime("create", "-b", bundle.args("sleep", "1000").save(id), id)
        runtime("start", id)
        assert runtime("exec", id, "echo", "in") == "in\n", id
        assert runtime.status(id) == "running"
        runtime("delete", "--force", id)
    assert runtime("list", "-q") == ""


@pytest.mark.parametrize("id", ["cgroup.procs", "cgroup.freeze"])
def test_an_id_that_is_a_file_of_the_groups(runtime: Runtime, bundle: Bundle, id: str) -> None:
    """Where the group is named by it, that is refused and nothing is left."""
    bundle.save("a")
    bundle.document["linux"]["cgroupsPath"] = f"/{runtime.group}/{id}"
    (bundle.path / "config.json").write_text(json.dumps(bundle.document))
    assert f"{id}: Not a directory" in runtime.refuses("create", "-b", bundle.path, id)
    assert runtime("list", "-q") == ""
