"""What scripts read, beside what runc itself writes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.container.spec.document import parse_spec
from agent.oci import command_table
from innkeeper import programs
from tests.needs import needs
from tests.oci import options
from tests.oci.oci_helpers import Bundle, Runtime

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox", "runc", "crun")]


def runc(*words: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """runc itself."""
    argv: list[str | Path] = [programs.require("runc"), *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("words", [[], ["--rootless"]])
def test_the_template_is_runcs(runtime: Runtime, tmp_path: Path, words: list[str]) -> None:
    """Byte for byte, but for the version of the specification."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    runtime("spec", "--bundle", tmp_path / "ours", *words)
    assert runc("spec", *words, cwd=tmp_path / "theirs").returncode == 0
    ours, theirs = ((tmp_path / name / "config.json").read_text() for name in ("ours", "theirs"))
    versions = [json.loads(text)["ociVersion"] for text in (ours, theirs)]
    assert ours == theirs.replace(f'"{versions[1]}"', f'"{versions[0]}"')
    assert "exists already" in runtime.refuses("spec", "-b", tmp_path / "ours")
    assert "none does not exist" in runtime.refuses("spec", "-b", tmp_path / "none")
    runtime("spec", "-f", "other.json", cwd=tmp_path)
    assert parse_spec({**json.loads((tmp_path / "other.json").read_text()), "root": {"path": "/x"}}).process is not None


def test_a_container_of_the_template_runs(runtime: Runtime, bundle: Bundle) -> None:
    (bundle.path / "config.json").unlink(missing_ok=True)
    runtime("spec", cwd=bundle.path)
    document = json.loads((bundle.path / "config.json").read_text())
    document["root"]["path"] = str(bundle.rootfs)
    document["process"] |= {"terminal": False, "args": ["hostname"]}
    document["linux"]["cgroupsPath"] = f"/{runtime.group}/a"
    (bundle.path / "config.json").write_text(json.dumps(document))
    assert runtime("run", "a", cwd=bundle.path) == "runc\n"


def test_json_is_written_as_go_writes_it(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """The same container by each, in a root of its own: the same text, but for what is of the moment."""
    bundle.document["annotations"] = {"a<b": "é & \u2028"}
    bundle.document["ociVersion"] = "1.0.2"
    bundle.args("sleep", "1000").save("a")
    root = tmp_path / "runc"
    argv: list[str | Path] = [programs.require("runc"), "--root", root, "run", "-d", "-b", bundle.path, "a"]
    quiet = subprocess.DEVNULL  # the container keeps the streams
    subprocess.run(argv, stdin=quiet, stdout=quiet, stderr=quiet, check=True)
    try:
        theirs = runc("--root", root, "list", "-f", "json").stdout
        table = runc("--root", root, "list").stdout
        ps = runc("--root", root, "ps", "a").stdout
    finally:
        runc("--root", root, "delete", "-f", "a")
    runtime("run", "-d", "-b", bundle.path, "a")
    try:
        ours = runtime("list", "--format", "json")
        assert _of_no_moment(ours) == _of_no_moment(theirs)
        assert runtime("list").splitlines()[0].split() == table.splitlines()[0].split()
        assert runtime("list").splitlines()[0].index("STATUS") == table.splitlines()[0].index("STATUS")
        assert runtime("ps", "a").splitlines()[0].split() == ps.splitlines()[0].split()
        assert runtime("ps", "-f", "json", "a") == f"[{runtime.state('a')['pid']}]\n"
        event = runtime("events", "--stats", "a")
        assert event == json.dumps(json.loads(event), separators=(",", ":")) + "\n"
        assert event.startswith('{"type":"stats","id":"a","data":{"cpu":{"usage":{"total":')
    finally:
        runtime("delete", "-f", "a")


def _of_no_moment(text: str) -> str:
    (entry,) = json.loads(text)
    for key in ("pid", "created", "ociVersion"):
        text = text.replace(json.dumps(entry[key]), key)
    return text


def test_a_root_without_containers(runtime: Runtime, tmp_path: Path) -> None:
    """One that is there has none; one that was named and is not there is an error (runc 1.2 and later)."""
    root = tmp_path / "there"
    root.mkdir()
    for words in (["list"], ["list", "-q"], ["list", "-f", "json"]):
        theirs = runc("--root", root, *words).stdout
        argv = [str(runtime.program), "--root", str(root), *words]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == theirs
        assert "--root" in runtime.refuses(*words)
    assert os.listdir(root) == []


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_the_table_of_options_has_all_of_theirs(name: str) -> None:
    """What the help of the runtime that is here lists; a newer one may have more, which the table names by its version."""
    rows = options.rows()
    for verb in (options.GLOBAL, *command_table.MODULES):
        seen = options.theirs(str(programs.require(name)), verb)
        said = {row.option: getattr(row, name) for row in rows if row.verb == verb}
        assert sorted(option for option in seen if said.get(option) != "yes") == [], verb
        assert sorted(option for option, word in said.items() if word == "yes" and option not in seen) == [], verb
