"""The wrapper of buildah, with a stand-in for the program."""

import shlex
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.guest.buildah import Buildah, BuildahError

BUILDAH = """#!/bin/sh
case "$*" in *--version*) echo "buildah version 1.28.2"; exit;; *" info") exit;; esac
echo x >> {runs}
while [ "$1" != -- ]; do shift; done
shift
"$@" > {output} || exit
[ "$(wc -l < {runs})" -gt {lost} ] && cat {output} || head -n 1 {output}
"""
"""Runs the program of `buildah run` on the host, and loses all but one line of its first outputs."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def losing(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, lost: int) -> Buildah:
    program = tmp_path / "buildah"
    program.write_text(BUILDAH.format(runs=shlex.quote(str(runs)), output=shlex.quote(str(tmp_path / "output")), lost=lost))
    program.chmod(0o755)
    monkeypatch.setattr(programs, "require", lambda name: program)
    return Buildah(tmp_path / "storage")


@pytest.mark.parametrize("text", ["one\ntwo\n", "one\ntwo", "", "\n"])
def test_output_that_was_lost_is_asked_for_again(text: str, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert losing(tmp_path, runs, monkeypatch, lost=2).run("box", ["printf", "%s", text]) == text
    assert len(runs.read_text().splitlines()) == 3


def test_output_that_is_lost_each_time_is_an_error(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildahError, match=r"^buildah run .* box -- printf x lost its output 10 times$"):
        losing(tmp_path, runs, monkeypatch, lost=100).run("box", ["printf", "x"])


def test_a_program_that_fails_is_run_once(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildahError, match=r"^buildah run .* box -- false failed with status 1"):
        losing(tmp_path, runs, monkeypatch, lost=0).run("box", ["false"])
    assert len(runs.read_text().splitlines()) == 1
