"""Runs of critest, Kubernetes' judge of CRI, and what each of its checks came to."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from innkeeper.shim import mounts
from tests import go_helpers
from tests.interop.node import CRI_TOOLS
from tests.shim.node import Node

PACKAGE = "sigs.k8s.io/cri-tools/cmd/critest"
RUNNER = "github.com/onsi/ginkgo/v2/ginkgo"
SECONDS = 3600.0
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Check:
    """What came of one check: its state, the message of a failure or skip, and the seconds that it took."""

    state: str
    message: str
    seconds: float


def run(node: Node, handler: str, folder: Path, processes: int = 1) -> Mapping[str, Check]:
    """Run all checks with a handler, `processes` at a time. `folder` is for the report and their temporary files. Return name -> Check."""
    program = go_helpers.build("test-critest", CRI_TOOLS, PACKAGE, tests=True) / "critest.test"
    runner = go_helpers.build("test-ginkgo", CRI_TOOLS, RUNNER)  # critest looks for it on the PATH
    report, work = folder / f"{handler}.json", folder / f"{handler}-files"
    work.mkdir()
    socket = f"unix://{node.folder}/c.sock"
    options = {"runtime-endpoint": socket, "image-endpoint": socket, "runtime-handler": handler, "config": "/dev/null"}
    options |= {"nri-socket": str(node.folder / "nri.sock"), "ginkgo.json-report": str(report), "ginkgo.timeout": "3h"}
    options |= {"parallel": str(processes)} if processes > 1 else {}
    argv = [str(program), *(f"-{name}={value}" for name, value in options.items()), "-ginkgo.no-color"]
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(work), "PATH": f"{runner}:{os.environ['PATH']}"}
    with (folder / f"{handler}.log").open("wb") as log:
        subprocess.run(argv, cwd=folder, env=environment, stdout=log, stderr=log, timeout=SECONDS, check=False)
    mounts.remove(work)  # a check that fails may leave what it has mounted
    return read(report)


def read(report: Path) -> Mapping[str, Check]:
    """Return what a report in JSON has of each check that was not filtered out."""
    found = {}
    for suite in json.loads(report.read_text()):
        for spec in suite["SpecReports"] or ():
            name = " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"]])
            failure = spec.get("Failure") or {}
            filtered = spec["State"] == SKIPPED and not failure
            if spec["LeafNodeType"] == "It" and not filtered and spec["State"] != "pending":
                found[name] = Check(spec["State"], failure.get("Message", ""), spec["RunTime"] / 1e9)
    return found
