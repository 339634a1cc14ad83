"""Flags of `run` and `exec`: each leads to a field of the request, by the parser that its row names."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from innkeeper.cli import exec_, parser, run
from innkeeper.engine import monitor, resolve, session
from innkeeper.engine.exec_ import ExecRequest
from innkeeper.engine.resolve import ResolvedRun, RunRequest
from innkeeper.image import Port, RunOptions, Tmpfs, Ulimit, Volume

TAKEN_APART = {"security_opt", "debug_guest"}
"""Flags that set other fields than one of their own name."""


def names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def test_every_flag_has_its_field() -> None:
    assert {flag.field for flag in run.FLAGS} - TAKEN_APART <= names(RunOptions) | names(RunRequest)
    assert {flag.field for flag in exec_.COMMAND.flags} == set(ExecRequest._fields) - {"command"}
    assert not names(RunOptions) & names(RunRequest)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the engine is asked for, in place of running it."""
    asked: dict[str, Any] = {}

    def note(request: RunRequest, options: RunOptions) -> ResolvedRun:
        asked.update({**vars(request), **vars(options)})
        return None  # type: ignore[return-value]  # of which nothing is asked here

    monkeypatch.setattr(resolve, "resolve_run", note)
    monkeypatch.setattr(session, "run", lambda resolved: 7)
    monkeypatch.setattr(monitor, "start", lambda resolved: "the id")
    return asked


def invoke(words: list[str]) -> int:
    return int(run.run(**parser.parse(run.COMMAND, words, "run")) or 0)


def test_defaults_are_those_of_the_request(requested: dict[str, Any]) -> None:
    assert invoke(["image"]) == 7
    assert requested == {**vars(RunRequest(reference="image")), **vars(RunOptions(args=[], mac="apparmor"))}


def test_every_flag_is_parsed(requested: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"""-i -d --rm --name n -e A=1 -e B --env-file f -v {tmp_path}:/v:ro -p 80-81 -p 90/udp -w /w -u u --group-add g -h host
    --add-host a:1.2.3.4 --dns 1.1.1.1 --dns-search . --dns-option ndots:1 -m 6m --cpus 1.5 --pids-limit 9 --read-only --tmpfs /t:ro
    --shm-size 1k --cap-add A --cap-drop ALL --security-opt seccomp=s --security-opt label=disable --ulimit nofile=1 --sysctl net.a=1
    --entrypoint e --init --stop-signal 9 --network none --scratch 1g --accel tcg --vm-memory 2m --timeout 5 --guest-variant selinux"""
    assert invoke([*text.split(), "image", "sh", "-c", "-i"]) == 0
    assert capsys.readouterr().out == "the id\n"
    options = RunOptions(
        args=["sh", "-c", "-i"],
        interactive=True,
        env=["A=1", "B"],
        env_files=[Path("f")],
        volumes=[Volume(tmp_path, "/v", read_only=True)],
        ports=[Port("", 0, 80), Port("", 0, 81), Port("", 0, 90, "udp")],
        workdir="/w",
        user="u",
        group_add=["g"],
        hostname="host",
        add_hosts=[("a", "1.2.3.4")],
        dns=["1.1.1.1"],
        dns_search=["."],
        dns_options=["ndots:1"],
        memory=6 << 20,
        cpus=1.5,
        pids_limit=9,
        read_only=True,
        tmpfs=[Tmpfs("/t", ("noexec", "nosuid", "nodev", "ro"))],
        shm_size=1024,
        cap_add=["A"],
        cap_drop=["ALL"],
        seccomp="s",
        label=["disable"],
        ulimits=[Ulimit("nofile", 1, 1)],
        sysctls={"net.a": "1"},
        entrypoint="e",
        init=True,
        stop_signal="9",
        mac="selinux",
    )
    request = RunRequest(
        reference="image",
        name="n",
        detached=True,
        remove=True,
        network=False,
        scratch=1 << 30,
        accel="tcg",
        vm_memory=2 << 20,
        timeout=5.0,
        guest="selinux",
    )
    assert requested == {**vars(request), **vars(options)}


def test_an_empty_size_is_no_size(requested: dict[str, Any]) -> None:
    assert invoke(["-m", "", "--cpus", "", "--shm-size", "", "--vm-memory", "", "--debug-guest", "image"]) == 7
    assert requested == {**vars(RunRequest(reference="image", guest="debug")), **vars(RunOptions(args=[], mac="apparmor"))}
