"""The jobs of `examples/ci`: the lines of each are run as a script, in another folder."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.needs import needs
from tests.paths import ROOT
from tests.vm.guest import artifacts

pytestmark = [pytest.mark.vm, needs("root")]

FOLDER = ROOT / "examples" / "ci"
LINKED = ("agent", "guest.lock", "innkeeper", "kernel-config", "pyproject.toml", "rootfs")


def lines_of(name: str) -> list[str]:
    """The commands of a job that are not about its machine, by the indentation of the two files."""
    text = (FOLDER / name).read_text()
    if name == "gitlab-ci.yml":
        script = text.partition("\n  script:\n")[2].partition("\n  artifacts:")[0]
        return [line.removeprefix("    - ") for line in script.splitlines()]
    blocks = re.findall(r"^ {8}run: \|\n((?: {10}.*\n)+)", text, re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("name", ["github-workflow.yml", "gitlab-ci.yml"])
def test_the_lines_of_a_job(tmp_path: Path, name: str) -> None:
    """The cache is ours, so what was built already is not built again."""
    artifacts()
    for part in LINKED:
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "build.py").symlink_to(ROOT / "build.py")
    script = "\n".join(["set -eu", *lines_of(name)])
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "artefact"
    listed = [line.split("  ") for line in (made / "SHA256SUMS").read_text().splitlines()]
    sums = {file: digest for digest, file in listed}
    assert {"bzImage", "rootfs.erofs", "manifest.json", "sbom.cdx.json", "provenance.json"} < set(sums)
    manifest = json.loads((made / "manifest.json").read_text())
    for file, entry in manifest["outputs"].items():
        digest = hashlib.sha256((made / file).read_bytes()).hexdigest()
        assert sums[file] == digest == entry["sha256"]
    subjects = {one["name"]: one["digest"]["sha256"] for one in json.loads((made / "provenance.json").read_text())["subject"]}
    assert subjects == {file: entry["sha256"] for file, entry in manifest["outputs"].items()}
    assert "traceEvents" in json.loads((tmp_path / "trace.json").read_text())


def test_both_jobs_run_the_same_commands() -> None:
    assert lines_of("github-workflow.yml") == lines_of("gitlab-ci.yml")
    assert len(lines_of("gitlab-ci.yml")) == 4
