"""Options that no other test is about. docs/oci.md names the test of each row."""

import json
import subprocess
from pathlib import Path

import pytest

from agent.linux import lsm
from tests.needs import needs
from tests.oci.oci_helpers import SECONDS, Bundle, Runtime

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]

NULL = "1:3"
"""The number of /dev/null, as stat(1) writes it."""


def through_shell(script: str, *argv: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command by a shell's `exec "$@"`, with redirections in `script`."""
    return subprocess.run(["sh", "-c", script, "sh", *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)


def without_pid_namespace(bundle: Bundle) -> None:
    """Let the container see the host's process numbers."""
    linux = bundle.document["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]


def with_folder(bundle: Bundle) -> Path:
    """Give the container a folder /out of the bundle."""
    folder = bundle.path / "out"
    folder.mkdir()
    bundle.document["mounts"].append({"destination": "/out", "type": "bind", "source": "out", "options": ["bind"]})
    return folder


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_specification_of_another_name(runtime: Runtime, bundle: Bundle, verb: str) -> None:
    """It is in the bundle, and config.json is not read."""
    marker = with_folder(bundle) / "marker"
    bundle.sh("echo called >/out/marker").save("a")
    (bundle.path / "config.json").rename(bundle.path / "other.json")
    (bundle.path / "config.json").write_text("not JSON")
    runtime(verb, "-b", bundle.path, "--config", "other.json", "a")
    if verb == "create":
        runtime("start", "a")
        runtime.until("a", "stopped")
        runtime("delete", "a")
    assert marker.read_text() == "called\n"
    assert "none.json" in runtime.refuses(verb, "-b", bundle.path, "--config=none.json", "a")


@pytest.mark.parametrize("option", [[], ["--no-subreaper"]])
def test_whose_children_are_left_behind(runtime: Runtime, bundle: Bundle, option: list[str]) -> None:
    """`run` becomes the parent of what the container leaves, unless it is told not to."""
    without_pid_namespace(bundle)
    bundle.sh("pid=$(sh -c 'sleep 1000 >/dev/null & echo $!'); cut -d' ' -f4 /proc/$pid/stat; kill $pid")
    argv = runtime.argv("run", *option, "-b", bundle.save("a"), "a")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        parent = int(process.communicate(timeout=SECONDS)[0])
    assert process.returncode == 0
    assert (parent == process.pid) == (option == [])


def test_create_is_never_a_subreaper(runtime: Runtime, bundle: Bundle) -> None:
    runtime("create", "--no-subreaper", "-b", bundle.args("sleep", "1000").save("a"), "a")
    runtime("start", "a")
    assert runtime.status("a") == "running"
    runtime("delete", "-f", "a")


def test_run_writes_the_number_of_the_first_process(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    runtime("run", "-d", "--pid-file", tmp_path / "pid", "-b", bundle.args("sleep", "1000").save("a"), "a")
    assert int((tmp_path / "pid").read_text()) == runtime.state("a")["pid"]
    runtime("delete", "-f", "a")


def test_create_passes_descriptors_on(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "three").write_text("third\n")
    folder = with_folder(bundle)
    argv = runtime.argv("create", "--preserve-fds", "1", "-b", bundle.sh("cat <&3 >/out/read").save("a"), "a")
    # Files and no pipes: the container keeps them open.
    done = through_shell(f'exec 3<{tmp_path}/three >{tmp_path}/said 2>&1; exec "$@"', *argv)
    assert done.returncode == 0, (tmp_path / "said").read_text()
    runtime("start", "a")
    runtime.until("a", "stopped")
    assert (folder / "read").read_text() == "third\n"
    runtime("delete", "a")


def test_exec_adds_groups(runtime: Runtime, bundle: Bundle) -> None:
    """To those of the container's first process."""
    bundle.args("sleep", "1000", user={"uid": 0, "gid": 0, "additionalGids": [5]})
    runtime("run", "-d", "-b", bundle.save("a"), "a")
    assert runtime("exec", "--additional-gids", "7", "--additional-gids=8", "a", "id", "-G") == "0 5 7 8\n"
    assert runtime("exec", "a", "id", "-G") == "0 5\n"
    assert "--additional-gids: 'audio' is not a number" in runtime.refuses("exec", "--additional-gids", "audio", "a", "true", status=255)
    runtime("delete", "-f", "a")


def test_exec_with_a_label_that_this_kernel_does_not_have(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    profile = "is not loaded" if lsm.apparmor_active() else "AppArmor is not active"
    assert f"process.apparmorProfile: {profile}" in runtime.refuses("exec", "--apparmor", "none", "a", "true", status=255).replace(
        "profile 'none' ", ""
    )
    context = "is no context" if lsm.selinux_active() else "SELinux is not active"
    assert context in runtime.refuses("exec", "--process-label", "none", "a", "true", status=255)
    assert runtime("exec", "--apparmor", "unconfined", "a", "echo", "in") == "in\n"
    runtime("delete", "-f", "a")


def test_what_is_logged_by_level(runtime: Runtime, bundle: Bundle) -> None:
    bundle.document["annotation"] = {}
    warning = "warning: annotation: unknown, ignored\n"
    for level, said in (("debug", warning), ("info", ""), ("warning", ""), ("error", "")):
        assert runtime.try_("--log-level", level, "run", "-b", bundle.save("a"), "a").stderr == said, level


# what the caller has closed

DEVICES = """
(for n in 0 1 2; do stat -L -c %t:%T /proc/$$/fd/$n; done) >/out/devices
(ls /proc/$$/fd) >/out/open
cat; echo out; echo err >&2; exit 7
"""
CLOSED = [("<&-", [0]), (">&-", [1]), ("2>&-", [2]), ("<&- >&- 2>&-", [0, 1, 2])]


def _assert_closed(folder: Path, closed: list[int]) -> None:
    """Assert that the program had /dev/null for each closed stream, and no descriptor that it should not have."""
    devices = (folder / "devices").read_text().split()
    assert [number for number in range(3) if devices[number] == NULL] == sorted({0, *closed})  # 0 is the null device anyway
    assert {int(number) for number in (folder / "open").read_text().split()} == {0, 1, 2}


@pytest.mark.parametrize(("redirection", "closed"), CLOSED)
def test_standard_streams_that_the_caller_has_closed(runtime: Runtime, bundle: Bundle, redirection: str, closed: list[int]) -> None:
    """Of `run` and `exec`: the program gets /dev/null, and the next file of ours does not get the number."""
    folder = with_folder(bundle)
    streams = (b"" if 1 in closed else b"out\n", b"" if 2 in closed else b"err\n")
    script = f'exec "$@" {redirection}'
    done = through_shell(script, *runtime.argv("run", "-b", bundle.sh(DEVICES).save("a"), "a"))
    assert (done.returncode, done.stdout, done.stderr) == (7, *streams)
    _assert_closed(folder, closed)
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("b"), "b")
    done = through_shell(script, *runtime.argv("exec", "b", "sh", "-c", DEVICES))
    assert (done.returncode, done.stdout, done.stderr) == (7, *streams)
    _assert_closed(folder, closed)
    runtime("delete", "-f", "b")


def test_commands_without_standard_streams(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """The state's files are what they are otherwise, and an error that nobody can read is a status still."""
    folder = with_folder(bundle)
    bundle.sh(DEVICES).save("a")
    closed = 'exec "$@" <&- >&- 2>&-'
    for words in (("create", "-b", str(bundle.path), "a"), ("state", "a"), ("list",), ("ps", "a"), ("start", "a")):
        assert through_shell(closed, *runtime.argv(*words)).returncode == 0, words
    runtime.until("a", "stopped")
    _assert_closed(folder, [0, 1, 2])
    files = {path.name: path.read_bytes() for path in (runtime.root / "a").iterdir() if path.suffix == ".json"}
    assert all(json.loads(text) for text in files.values()), files
    assert through_shell(closed, *runtime.argv("start", "a")).returncode == 1
    assert through_shell(closed, *runtime.argv("--log", str(tmp_path / "log"), "state", "none")).returncode == 1
    assert "'none' does not exist" in (tmp_path / "log").read_text()
    runtime("delete", "a")
