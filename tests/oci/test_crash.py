"""What is said and done after a crash: the kernel is asked, not what was written down."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]


def _change(runtime: Runtime, id: str, **fields: object) -> None:
    path = runtime.root / id / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_pid_that_is_anothers_by_now_is_left_alone(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    record = json.loads((runtime.root / "a/state.json").read_text())
    with subprocess.Popen(["sleep", "1000"]) as other:
        _change(runtime, "a", pid=other.pid)
        assert runtime.status("a") == "stopped"
        assert "container not running" in runtime.refuses("kill", "a", "KILL")
        assert "container not running" in runtime.refuses("exec", "a", "true", status=255)
        assert other.poll() is None
        _change(runtime, "a", pid=record["pid"])
        assert runtime.status("a") == "running"
        _change(runtime, "a", pid=other.pid)
        runtime("delete", "a")
        assert other.poll() is None
        eventually(lambda: not Path(f"/proc/{record['pid']}").exists())
        other.kill()


def test_a_first_process_that_was_killed_is_stopped(runtime: Runtime, bundle: Bundle) -> None:
    runtime("create", "-b", bundle.args("sleep", "1000").save("a"), "a")
    os.kill(runtime.state("a")["pid"], signal.SIGKILL)
    runtime.until("a", "stopped")
    assert "stopped, not created" in runtime.refuses("start", "a")
    runtime("delete", "a")


def test_a_start_that_was_cut_off_is_known_from_the_first_process(runtime: Runtime, bundle: Bundle) -> None:
    """The socket's name stays when a starter is killed after its word: nobody listens on it any more, and that is what counts."""
    runtime("create", "-b", bundle.args("sleep", "1000").save("a"), "a")
    os.link(runtime.root / "a/start.sock", runtime.root / "a/kept.sock")
    runtime("start", "a")
    os.rename(runtime.root / "a/kept.sock", runtime.root / "a/start.sock")
    assert runtime.status("a") == "running"
    assert "running, not created" in runtime.refuses("start", "a")
    runtime("delete", "-f", "a")


def test_asking_does_not_start(runtime: Runtime, bundle: Bundle) -> None:
    runtime("create", "-b", bundle.args("sleep", "1000").save("a"), "a")
    for _ in range(20):
        assert runtime.status("a") == "created"
    runtime("start", "a")
    assert runtime.status("a") == "running"
    runtime("delete", "-f", "a")


def _hangs(tmp_path: Path) -> dict[str, object]:
    """A hook that goes on until there is a file."""
    script = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/stop ]; do sleep 0.05; done; touch {tmp_path}/ended"
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}


def test_a_creation_that_is_cut_off_leaves_what_can_be_deleted(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.document["hooks"] = {"createRuntime": [_hangs(tmp_path)]}
    with subprocess.Popen(runtime.argv("create", "-b", bundle.save("a"), "a"), stderr=subprocess.DEVNULL) as creator:
        eventually((tmp_path / "begun").exists)
        assert runtime.state("a")["pid"] == 0
        assert runtime.status("a") == "creating"
        assert "creating" in runtime.refuses("kill", "a")
        creator.kill()
    assert runtime.status("a") == "stopped"
    eventually(lambda: not (runtime.group_of("a") / "cgroup.procs").read_text())
    assert "exists already" in runtime.refuses("create", "-b", bundle.path, "a")
    runtime("delete", "a")
    assert not runtime.group_of("a").exists()
    (tmp_path / "stop").touch()
    eventually((tmp_path / "ended").exists)


@pytest.mark.parametrize("word", ["TERM", "INT"])
def test_a_creation_that_is_interrupted_is_undone(runtime: Runtime, bundle: Bundle, tmp_path: Path, word: str) -> None:
    bundle.document["hooks"] = {"createRuntime": [_hangs(tmp_path)]}
    with subprocess.Popen(runtime.argv("create", "-b", bundle.save("a"), "a"), stderr=subprocess.PIPE, text=True) as creator:
        eventually((tmp_path / "begun").exists)
        creator.send_signal(getattr(signal, f"SIG{word}"))
        _, said = creator.communicate()
    assert (creator.returncode, said) == (1, "error: create: interrupted by a signal\n")
    assert runtime("list", "-q") == ""
    assert not runtime.group_of("a").exists()
    assert not (tmp_path / "ended").exists()


@pytest.mark.parametrize("kind", ["createRuntime", "poststart"])
def test_force_ends_a_verb_that_hangs(runtime: Runtime, bundle: Bundle, tmp_path: Path, kind: str) -> None:
    bundle.document["hooks"] = {kind: [_hangs(tmp_path)]}
    bundle.args("sleep", "1000")
    create = runtime.argv("create", "-b", bundle.save("a"), "a")
    if kind == "poststart":
        subprocess.run(create, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hanging = create if kind == "createRuntime" else runtime.argv("start", "a")
    with subprocess.Popen(hanging, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually((tmp_path / "begun").exists)
        runtime("delete", "--force", "a")
        assert process.wait() == 1
    assert runtime("list", "-q") == ""
    assert not (tmp_path / "ended").exists()


def test_a_folder_without_a_record_is_removed_by_force_only(runtime: Runtime) -> None:
    (runtime.root / "a").mkdir(parents=True)
    assert "does not exist" in runtime.refuses("state", "a")
    assert "does not exist" in runtime.refuses("delete", "a")
    assert runtime("list", "-q") == ""
    assert (runtime.root / "a").is_dir()
    runtime("delete", "--force", "a")
    assert not (runtime.root / "a").exists()


def test_a_group_that_was_there_before_is_not_the_containers(runtime: Runtime, bundle: Bundle) -> None:
    """A create that is refused because the group has processes never touches them, nor does a delete of what it left."""
    group = runtime.group_of("a")
    group.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as other:
        (group / "cgroup.procs").write_text(str(other.pid))
        assert "has processes already" in runtime.refuses("create", "-b", bundle.save("a"), "a")
        record = {
            "id": "a",
            "version": "1.2.0",
            "bundle": "/",
            "rootfs": "/",
            "created": "",
            "owner": "",
            "annotations": {},
            "cgroup": str(group),
        }
        (runtime.root / "a").mkdir(parents=True)
        (runtime.root / "a/state.json").write_text(json.dumps({**record, "made": []}))
        runtime("delete", "--force", "a")
        assert other.poll() is None
        other.kill()
    group.rmdir()
