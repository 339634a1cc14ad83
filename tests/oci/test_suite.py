"""The validation suite of runtime-tools as the judge of `innkeeper-oci`, of Debian's runc and of crun, in the same run.

docs/runtime-tools.toml explains each program that does not come out clean.
"""

import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from innkeeper import programs
from tests.needs import needs
from tests.oci import suite
from tests.oci.suite import TABLE, Subject, Verdict
from tests.paths import ROOT

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "runc", "crun", "go", "unshare")]

EXPLAINED = ROOT / "docs/runtime-tools.toml"
KINDS = ("suite", "machine", "choice")
OURS = "innkeeper-oci"


def explained() -> dict[str, tuple[str, str]]:
    """Program -> (fault, one of KINDS; why)."""
    entries = tomllib.loads(EXPLAINED.read_text())["explained"]
    return {program: (entry["fault"], entry["why"]) for entry in entries for program in entry["programs"]}


# crun 1.8 refuses versions that it does not know.
_CRUN = """
for word; do
    case $last in --bundle) sed -i -E 's/("ociVersion": *")[^"]*"/\\11.0.2"/' "$word/config.json";; esac
    last=$word
done
exec {program} --root $ROOT "$@"
"""


@pytest.fixture(scope="module")
def subjects(oci_program: Path) -> list[Subject]:
    return [
        Subject(OURS, f'exec {oci_program} --root $ROOT "$@"'),
        Subject("runc", f'exec {programs.require("runc")} --root $ROOT "$@"'),
        Subject("crun", _CRUN.format(program=programs.require("crun")), view="v1"),
    ]


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest, subjects: list[Subject]) -> Iterator[Mapping[str, Mapping[str, Verdict]]]:
    built = suite.build()
    # Not below pytest's own folder, which a mapped root may not enter: runc and crun need their bundles to be in reach.
    work = Path(tempfile.mkdtemp(prefix="innkeeper-suite-"))
    work.chmod(0o755)
    result = suite.judge(built, subjects, suite.names(built), work)
    faults = {program: fault for program, (fault, _why) in explained().items()}
    request.config.stash[TABLE] = suite.table(result, subjects, faults)
    yield result
    shutil.rmtree(work, ignore_errors=True)


def test_every_failure_is_explained(verdicts: Mapping[str, Mapping[str, Verdict]]) -> None:
    failing = {program: row[OURS] for program, row in verdicts.items() if row[OURS].word == "failing"}
    unexplained = {program: verdict.output[-3000:] for program, verdict in failing.items() if program not in explained()}
    assert unexplained == {}


def test_no_explanation_is_out_of_date(verdicts: Mapping[str, Mapping[str, Verdict]]) -> None:
    assert {fault for fault, _why in explained().values()} <= {*KINDS}
    assert all(len(why) > 50 for _fault, why in explained().values())
    assert sorted(explained().keys() - verdicts.keys()) == []
    assert [name for name, (fault, _) in explained().items() if fault != "machine" and verdicts[name][OURS].word == "clean"] == []


def test_no_worse_than_runc_and_crun(verdicts: Mapping[str, Mapping[str, Verdict]]) -> None:
    """By programs that are clean, among those that judge a runtime: what this one refuses on purpose counts against it."""
    judged = [program for program in verdicts if explained().get(program, ("choice", ""))[0] == "choice"]
    clean = {name: len([1 for program in judged if verdicts[program][name].word == "clean"]) for name in (OURS, "runc", "crun")}
    assert clean[OURS] >= max(clean["runc"], clean["crun"]), clean
