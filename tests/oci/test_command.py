"""The command line itself: options, messages, refusals by name, and the verbs that only tell."""

import json
from pathlib import Path

import pytest

from agent.container import features
from agent.oci import command_table
from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime
from tests.root.container_helpers import cgroup2
from tests.vm.command import innkeeper

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--systemd-cgroup", "list"], "--systemd-cgroup"),
        (["--cgroup-manager=systemd", "list"], "--cgroup-manager"),
        (["--rootless", "true", "list"], "--rootless"),
        (["--log-format", "xml", "list"], "--log-format"),
        (["checkpoint", "a"], "checkpoint: this runtime cannot save"),
        (["restore", "a"], "restore: this runtime cannot restore"),
        (["none"], "none: unknown command"),
        (["--none", "list"], "--none: unknown option"),
        (["create", "--none", "a"], "--none: unknown option"),
        (["create"], "create: needs ID"),
        (["start", "a", "b"], "'b' is one too many"),
        (["create", "--no-pivot", "a"], "--no-pivot: a root"),
        (["run", "--no-new-keyring", "a"], "--no-new-keyring: a shared"),
        (["create", "--preserve-fds", "x", "a"], "--preserve-fds"),
        (["update", "a"], "nothing to change"),
        (["update", "--l3-cache-schema", "x", "a"], "--l3-cache-schema: no resctrl"),
        (["events", "--interval", "x", "a"], "--interval"),
    ],
)
def test_refused_by_name(runtime: Runtime, bundle: Bundle, words: list[str], said: str) -> None:
    bundle.save("a")
    text = runtime.refuses(*words, cwd=bundle.path)
    assert text.startswith("error: ")
    assert said in text


def test_accepted_options(runtime: Runtime, bundle: Bundle) -> None:
    done = runtime.try_(
        "--rootless", "auto", "--rootless=false", "--cgroup-manager", "cgroupfs", "--debug", "run", "a", cwd=bundle.save("a")
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert runtime("--version").splitlines()[0] == "innkeeper-oci version 0.1.0"
    for name in command_table.MODULES:
        assert name in runtime("--help")
        assert command_table.find(name).summary in runtime(name, "--help")


def test_messages_go_to_a_log(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    bundle.document["linux"]["resources"] = {"memory": {"limit": 1 << 30}}
    bundle.document["annotation"] = {}
    said = runtime.refuses("--log", log, "--log-format", "json", "create", "-b", bundle.save("a"), "a")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["level"] for entry in entries] == ["warning", "error"]
    assert entries[0]["msg"] == "annotation: unknown, ignored"
    assert said == f"error: {entries[1]['msg']}\n"
    assert said.startswith("error: linux.resources.memory.limit: ")
    runtime.refuses("--log", log, "state", "none")
    assert "level=error msg=\"container 'none' does not exist\"" in log.read_text().splitlines()[-1]


def test_standard_error_has_errors_only(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """An engine takes any text there for the reason of a failure; warnings are for the log, or for whoever asks for detail."""
    bundle.document["annotation"] = {}
    assert runtime.try_("run", "-b", bundle.save("a"), "a").stderr == ""
    assert runtime.try_("--debug", "run", "-b", bundle.path, "a").stderr == "warning: annotation: unknown, ignored\n"
    assert runtime.try_("--debug", "--log", tmp_path / "log", "run", "-b", bundle.path, "a").stderr == ""
    assert "annotation: unknown, ignored" in (tmp_path / "log").read_text()
    assert runtime.refuses("state", "none") == "error: container 'none' does not exist\n"
    assert json.loads(runtime.refuses("--log-format", "json", "state", "none"))["level"] == "error"


def test_a_limit_without_its_controller_is_refused_by_name(runtime: Runtime, bundle: Bundle) -> None:
    controllers = (runtime.group_of("a").parent / "cgroup.controllers").read_text().split()
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    limits = {"memory": ("memory.limit", "--memory"), "cpu": ("cpu.shares", "--cpu-share"), "pids": ("pids.limit", "--pids-limit")}
    absent = {name: limit for name, limit in limits.items() if name not in controllers}
    for name, (field, option) in absent.items():
        assert f"linux.resources.{field}: the cgroup v2 hierarchy has no {name} controller here" in runtime.refuses(
            "update", option, "100000000", "a"
        )
    for name in limits.keys() - absent.keys():
        runtime("update", limits[name][1], "100000000", "a")
    runtime("delete", "-f", "a")


def test_update_changes_what_there_is(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """hugetlb is what a hierarchy has that shares the machine with cgroup v1; devices are there always."""
    if "hugetlb" not in (runtime.group_of("a").parent / "cgroup.controllers").read_text().split():
        pytest.skip("needs the hugetlb controller in the v2 hierarchy")
    bundle.document["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    (tmp_path / "r.json").write_text(json.dumps({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}))
    runtime("update", "--resources", tmp_path / "r.json", "a")
    file = runtime.group_of("a") / "hugetlb.2MB.max"
    assert file.read_text() == f"{4 << 20}\n"
    (tmp_path / "r.json").write_text(json.dumps({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}], "pids": {"limit": 5}}))
    with (tmp_path / "r.json").open() as stdin:
        assert "pids" in runtime.refuses("update", "-r", "-", "a", stdin=stdin)
    assert file.read_text() == f"{4 << 20}\n"
    runtime("delete", "-f", "a")


def test_update_replaces_the_device_program(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """Programs of one group are joined by and: a second one beside the first could never allow more."""
    bundle.document["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    probe = ["sh", "-c", "rm -f /dev/x; mknod /dev/x c 249 77 && head -c 0 /dev/x"]
    denied, no_such_device = "Operation not permitted", "No such device"
    assert denied in runtime.refuses("exec", "a", *probe)
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 249, "minor": 77, "access": "rwm"}]
    for _ in range(2):
        (tmp_path / "r.json").write_text(json.dumps({"devices": rules}))
        runtime("update", "-r", tmp_path / "r.json", "a")
        assert no_such_device in runtime.refuses("exec", "a", *probe)
    (tmp_path / "r.json").write_text(json.dumps({"devices": rules[:1]}))
    runtime("update", "-r", tmp_path / "r.json", "a")
    assert denied in runtime.refuses("exec", "a", *probe)
    runtime("delete", "-f", "a")


def test_features_are_those_of_the_core(runtime: Runtime) -> None:
    assert json.loads(runtime("features")) == json.loads(json.dumps(features.features(cgroup2())))


def test_events(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    event = json.loads(runtime("events", "--stats", "a"))
    assert (event["type"], event["id"]) == ("stats", "a")
    assert event["data"]["cpu"]["usage"]["total"] > 0
    runtime("kill", "a", "KILL")
    runtime.until("a", "stopped")
    assert "container not running" in runtime.refuses("events", "--stats", "a")
    runtime("delete", "a")


def test_events_go_on_until_the_end(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "3").save("a"), "a")
    lines = runtime("events", "--interval", "100ms", "a").splitlines()
    assert {json.loads(line)["type"] for line in lines} == {"stats"}
    runtime.until("a", "stopped")
    runtime("delete", "a")


def test_explain_tells_the_plan_and_does_nothing(runtime: Runtime, bundle: Bundle) -> None:
    bundle.document["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.document["linux"]["resources"] = {"memory": {"limit": 1 << 20}}
    bundle.document["root"]["readonly"] = True
    text = runtime("explain", bundle.save("a"))
    for line in (
        "  pid: new",
        "  write '1048576' to memory.max (linux.resources.memory.limit)",
        "  mount proc on /proc (nosuid,nodev,noexec)",
        "  allow device c 1:3 rwm",
        "  make the default devices and links below /dev",
        "  make the mount / read-only",
        "  sysctl net.ipv4.ip_forward = 1",
        "  run true in /",
    ):
        assert line in text.splitlines()
    assert not runtime.group_of("a").exists()
    bundle.document["linux"]["namespaces"].append({"type": "none"})
    assert "linux.namespaces[6].type" in runtime.refuses("explain", bundle.save("a") / "config.json")


def test_the_command_line_explains_by_it(runtime: Runtime, bundle: Bundle) -> None:
    done = innkeeper("explain", str(bundle.save("a")))
    assert (done.returncode, done.stdout.decode()) == (0, runtime("explain", bundle.save("a")))
    assert innkeeper("explain", "/no/such").returncode != 0
