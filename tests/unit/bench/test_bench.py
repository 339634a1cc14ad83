"""How figures are made of measurements, and format_value."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from bench import command
from bench.figures import Figure, Section, as_document, figure, format_value, ratio, throughput
from bench.image import make_layout, make_root
from bench.interleave import shuffled
from tests.needs import needs


def test_less_is_better() -> None:
    row = figure("exec", "ms", [3.0, 1.0, 2.0], "at most 2", 2)
    assert (row.median, row.best, row.samples, row.met) == (2.0, 1.0, 3, True)
    assert figure("exec", "ms", [3.0], "at most 2", 2).met is False
    assert figure("exec", "ms", [3.0]).met is None


def test_more_is_better() -> None:
    assert throughput("out", [10.0, 30.0, 20.0]).best == 30.0


def test_a_ratio_of_medians_and_of_the_best() -> None:
    row = ratio("agent / runc", [1.0, 2.0, 9.0], [10.0, 20.0, 30.0], 0.2)
    assert (row.median, row.best, row.met, row.budget) == (0.1, 0.1, True, "at most 0.2")


def test_each_subject_is_measured_as_often_and_the_first_round_is_thrown_away() -> None:
    calls: list[str] = []

    def subject(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    times = shuffled({"a": lambda: subject("a"), "b": lambda: subject("b")}, 10, gap=0)
    assert [len(times["a"]), len(times["b"]), len(calls)] == [10, 10, 22]
    assert not {1.0, 2.0} & {*times["a"], *times["b"]}
    rounds = {tuple(calls[at : at + 2]) for at in range(0, 22, 2)}
    assert rounds == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.16, "", "0.160"), (7.254, "ms", "7.25"), (1234.5, "us", "1234"), (61.0, "count", "61"), (140.2, "MB/s", "140")],
)
def test_digits(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_the_table_and_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    sections = [
        Section(
            "sizes", [Figure("kernel", "MB", 5.0, 5.0, 1, "at most 6", True), Figure("root", "MB", 26.0, 26.0, 1, "at most 25", False)]
        ),
        Section("beside runc", left_out="left out: no runc"),
    ]
    command._print({"kernel": "6.12"}, sections)
    printed = capsys.readouterr().out
    assert "at most 6 met" in printed and "at most 25 NOT MET" in printed
    assert "left out: no runc" in printed and "kernel: 6.12" in printed
    document = json.loads(json.dumps(as_document({"kernel": "6.12"}, sections)))
    assert document["format_version"] == 1
    assert document["sections"][0]["figures"][1]["met"] is False


@needs("busybox")
def test_the_measured_container(tmp_path: Path) -> None:
    make_root(tmp_path / "root")
    assert subprocess.run([tmp_path / "root/bin/busybox", "true"], check=False).returncode == 0
    assert make_layout(tmp_path / "root", tmp_path / "one") == f"oci:{tmp_path}/one:bench"
    make_layout(tmp_path / "root", tmp_path / "two")
    index = (tmp_path / "one/index.json").read_text()
    assert index == (tmp_path / "two/index.json").read_text()
    manifest_name = json.loads(index)["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads((tmp_path / "one/blobs/sha256" / manifest_name).read_text())
    layer = tmp_path / "one/blobs/sha256" / manifest["layers"][0]["digest"].removeprefix("sha256:")
    with tarfile.open(layer) as archive:
        assert {"bin/busybox", "bin/true", "proc", "etc/passwd"} <= set(archive.getnames())
