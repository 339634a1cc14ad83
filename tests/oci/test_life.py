"""A container's life by the command: create, start, state, kill, delete, and what each refuses."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime, sealed_program_of

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]


def test_the_program_runs_when_it_is_started_and_not_before(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.sh("echo called >>/out/marker")
    bundle.document["mounts"].append({"destination": "/out", "type": "bind", "source": "out", "options": ["bind"]})
    (bundle.path / "out").mkdir()
    runtime("create", "--bundle", bundle.save("a"), "--pid-file", tmp_path / "pid", "a")
    state = runtime.state("a")
    assert state == {
        "ociVersion": "1.2.0",
        "id": "a",
        "pid": int((tmp_path / "pid").read_text()),
        "status": "created",
        "bundle": str(bundle.path),
        "rootfs": str(bundle.rootfs),
        "created": state["created"],
        "owner": "root",
        "annotations": {},
    }
    assert not (bundle.path / "out/marker").exists()
    assert sealed_program_of(state["pid"])
    runtime("start", "a")
    runtime.until("a", "stopped")
    assert (bundle.path / "out/marker").read_text() == "called\n"
    assert runtime.state("a")["pid"] == 0
    assert "not created" in runtime.refuses("start", "a")
    assert "container not running" in runtime.refuses("kill", "a")
    runtime("delete", "a")
    assert (bundle.path / "out/marker").read_text() == "called\n"
    for verb in ("state", "start", "kill", "delete", "pause", "resume", "ps"):
        assert "'a' does not exist" in runtime.refuses(verb, "a")
    assert "'a' does not exist" in runtime.refuses("exec", "a", "true", status=255)
    runtime("delete", "--force", "a")


def test_only_a_stopped_container_is_deleted_unless_forced(runtime: Runtime, bundle: Bundle) -> None:
    bundle.args("sleep", "1000")
    for id in ("a", "b"):
        runtime("create", "-b", bundle.save(id), id)
    assert "not stopped: created" in runtime.refuses("delete", "a")
    runtime("start", "b")
    assert "not stopped: running" in runtime.refuses("delete", "b")
    assert {entry["id"]: entry["status"] for entry in json.loads(runtime("list", "--format", "json"))} == {"a": "created", "b": "running"}
    assert runtime("list", "-q").split() == ["a", "b"]
    pids = [runtime.state(id)["pid"] for id in ("a", "b")]
    for id in ("a", "b"):
        runtime("delete", "--force", id)
        assert not runtime.group_of(id).exists()
    assert runtime("list", "--format", "json") == "null\n"
    for pid in pids:
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]


def test_an_id_is_taken_once(runtime: Runtime, bundle: Bundle) -> None:
    bundle.args("sleep", "1000")
    runtime("create", "-b", bundle.save("a"), "a")
    pid = runtime.state("a")["pid"]
    assert "exists already" in runtime.refuses("create", "-b", bundle.path, "a")
    assert "exists already" in runtime.refuses("run", "-b", bundle.path, "a")
    assert (runtime.state("a")["pid"], runtime.status("a")) == (pid, "created")
    runtime("delete", "-f", "a")


@pytest.mark.parametrize("id", ["", ".", "..", "../x", "a/b", "a b", "\u00e9", "a" * 256])
def test_an_id_never_leaves_its_folder(runtime: Runtime, bundle: Bundle, id: str) -> None:
    before = sorted(bundle.path.parent.rglob("*"))
    for words in (["create", "-b", str(bundle.save("a"))], ["state"], ["delete", "--force"], ["kill"], ["start"]):
        assert "id:" in runtime.refuses(*words, id)
    outputs = {path for path in bundle.path.parent.iterdir() if path.name.startswith("output-")}
    assert sorted({*bundle.path.parent.rglob("*")} - outputs - {bundle.path / "config.json"}) == before


def test_what_the_bundle_says_later_changes_nothing(runtime: Runtime, bundle: Bundle) -> None:
    bundle.args("sleep", "1000")
    runtime("create", "-b", bundle.save("a"), "a")
    bundle.args("false").document["process"]["env"].append("LATER=1")
    bundle.save("a")
    runtime("start", "a")
    assert runtime.status("a") == "running"
    assert "LATER" not in runtime("exec", "a", "env")
    runtime("delete", "-f", "a")


def test_without_a_process_a_container_is_made_and_cannot_be_started(runtime: Runtime, bundle: Bundle) -> None:
    del bundle.document["process"]
    bundle.document["linux"]["cgroupsPath"] = f"/{runtime.group}/a"
    (bundle.path / "config.json").write_text(json.dumps(bundle.document))
    runtime("create", "-b", bundle.path, "a")
    assert runtime.status("a") == "created"
    assert "process: missing" in runtime.refuses("start", "a")
    assert runtime.status("a") == "created"
    runtime("delete", "--force", "a")


def test_a_failed_create_leaves_nothing(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    assert "executable file not found" in runtime.refuses("create", "-b", bundle.args("none").save("a"), "a")
    bundle.args("true")
    assert "No such file" in runtime.refuses("create", "-b", bundle.save("a"), "--pid-file", tmp_path / "none/pid", "a")
    assert "--console-socket" in runtime.refuses("create", "-b", bundle.save("a"), "--console-socket", tmp_path / "none", "a")
    bundle.document["linux"]["intelRdt"] = {"closID": "x"}
    assert "linux.intelRdt" in runtime.refuses("create", "-b", bundle.save("a"), "a")
    assert "config.json" in runtime.refuses("create", "-b", tmp_path / "none", "a")
    assert runtime("list", "-q") == ""


@pytest.mark.parametrize("word", ["KILL", "SIGKILL", "kill", "9"])
def test_signals_by_name_and_number(runtime: Runtime, bundle: Bundle, word: str) -> None:
    runtime("run", "--detach", "-b", bundle.args("sleep", "1000").save("a"), "a")
    for wrong in ("NONE", "65", "-1", "SIG"):
        assert "signal" in runtime.refuses("kill", "a", "--", wrong)
    assert runtime.status("a") == "running"
    runtime("kill", "a", word)
    runtime.until("a", "stopped")
    runtime("delete", "a")


def test_a_created_container_can_be_killed(runtime: Runtime, bundle: Bundle) -> None:
    runtime("create", "-b", bundle.save("a"), "a")
    runtime("kill", "a", "KILL")
    runtime.until("a", "stopped")
    runtime("delete", "a")


def test_all_means_every_process(runtime: Runtime, bundle: Bundle) -> None:
    """Without a pid namespace what the first process started lives on when it ends: SIGKILL and delete end it too."""
    linux = bundle.document["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]
    bundle.sh("sleep 1000 & sleep 1001 & exec sleep 1002")
    runtime("run", "-d", "-b", bundle.save("a"), "a")
    eventually(lambda: len(json.loads(runtime("ps", "--format", "json", "a"))) == 3)
    runtime("kill", "--all", "a", "TERM")
    runtime.until("a", "stopped")
    eventually(lambda: not (runtime.group_of("a") / "cgroup.procs").read_text())
    runtime("delete", "a")
    runtime("run", "-d", "-b", bundle.save("b"), "b")
    eventually(lambda: len(json.loads(runtime("ps", "-f", "json", "b"))) == 3)
    os.kill(runtime.state("b")["pid"], signal.SIGTERM)
    runtime.until("b", "stopped")
    assert len(json.loads(runtime("ps", "-f", "json", "b"))) == 2
    runtime("delete", "b")


def test_two_starts_at_once_start_once(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh("echo called >>/out/marker; exec sleep 1000")
    bundle.document["mounts"].append({"destination": "/out", "type": "bind", "source": "out", "options": ["bind"]})
    (bundle.path / "out").mkdir()
    runtime("create", "-b", bundle.save("a"), "a")
    both = [subprocess.Popen(runtime.argv("start", "a"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    eventually((bundle.path / "out/marker").exists)
    assert (bundle.path / "out/marker").read_text() == "called\n"
    runtime("delete", "-f", "a")


def test_frozen_and_thawed(runtime: Runtime, bundle: Bundle) -> None:
    runtime("create", "-b", bundle.args("sleep", "1000").save("a"), "a")
    assert "created" in runtime.refuses("pause", "a")
    runtime("start", "a")
    assert "running" in runtime.refuses("resume", "a")
    runtime("pause", "a")
    assert runtime.status("a") == "paused"
    assert "frozen 1" in (runtime.group_of("a") / "cgroup.events").read_text()
    assert "paused" in runtime.refuses("exec", "a", "true", status=255)
    runtime("resume", "a")
    assert runtime.status("a") == "running"
    runtime("pause", "a")
    runtime("kill", "a", "KILL")
    runtime.until("a", "stopped")
    runtime("delete", "a")
