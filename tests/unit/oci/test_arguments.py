"""The runtime command's command line: a table of options, read as runc reads it; signals, durations and changes of limits by name."""

from typing import Any

import pytest

from agent.errors import Refused
from agent.oci.arguments import Option, UsageError, parse
from agent.oci.commands.events import seconds
from agent.oci.commands.kill import number
from agent.oci.commands.update import merged
from tests.oci.suite import read_tap

OPTIONS = (
    Option("bundle", "", "DIR", short="b"),
    Option("env", "", "ENTRY", short="e", many=True),
    Option("detach", "", short="d"),
    Option("format", "", "FORMAT", choices=("json", "table")),
    Option("no-pivot", "", refused="because"),
    Option("old", "", "N", refused="gone"),
)


def test_values_and_words() -> None:
    parsed = parse(["-b", "x", "id", "--detach", "--env=A=1", "-e", "B", "more"], OPTIONS)
    assert (parsed.text("bundle"), parsed.switch("detach"), parsed.many("env")) == ("x", True, ["A=1", "B"])
    assert parsed.arguments == ("id", "more")
    assert (parsed.text("format", "table"), parsed.has("format"), parsed.many("format")) == ("table", False, [])
    assert not parse(["--detach=false"], OPTIONS).switch("detach")
    assert parse(["a", "--", "-b"], OPTIONS).arguments == ("a", "-b")
    assert parse(["-"], OPTIONS).arguments == ("-",)


def test_the_command_is_not_ours_to_read() -> None:
    parsed = parse(["-d", "id", "ls", "-b", "--", "--env"], OPTIONS, interleaved=False)
    assert (parsed.switch("detach"), parsed.has("bundle")) == (True, False)
    assert parsed.arguments == ("id", "ls", "-b", "--", "--env")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--none"], "--none: unknown option"),
        (["-x"], "-x: unknown option"),
        (["--bundle"], "--bundle: needs a value"),
        (["--detach=maybe"], "neither true nor false"),
        (["--format", "xml"], "'xml' is not one of json, table"),
    ],
)
def test_what_cannot_be_read(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(words, OPTIONS)


def test_refused_by_name() -> None:
    for words, field in ((["--no-pivot"], "--no-pivot"), (["--old", "1"], "--old"), (["--old=1"], "--old")):
        with pytest.raises(Refused) as refusal:
            parse(words, OPTIONS)
        assert refusal.value.field == field
    assert parse(["--no-pivot=false"], OPTIONS).arguments == ()


def test_numbers() -> None:
    assert parse(["--bundle", "-1"], OPTIONS).number("bundle") == -1
    with pytest.raises(UsageError, match="not a whole number"):
        parse(["--bundle", "1.5"], OPTIONS).number("bundle")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1048576", 1 << 20), ("64M", 64 << 20), ("1.5g", 3 << 29), ("2 GiB", 2 << 30), ("10b", 10), ("1T", 1 << 40), ("-1", -1)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse(["--bundle", text], OPTIONS).size("bundle") == size


@pytest.mark.parametrize("text", ["", "M", "1X", "1.G", "--1", "1e3", "\u0661M"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="not a"):
        parse([f"--bundle={text}"], OPTIONS).size("bundle")


@pytest.mark.parametrize(("word", "value"), [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("term", 15), ("0", 0), ("64", 64), ("RTMIN+1", 35)])
def test_signals(word: str, value: int) -> None:
    assert number(word) == value


@pytest.mark.parametrize("word", ["", "65", "-1", "SIG", "NONE", "SIG_IGN", "1.0", "RTMIN+99", "KILL+1", "\u0661"])
def test_no_signals(word: str) -> None:
    with pytest.raises(Refused):
        number(word)


def test_durations() -> None:
    assert [seconds(word) for word in ("5s", "500ms", "2m", "1h", "3")] == [5.0, 0.5, 120.0, 3600.0, 3.0]
    for word in ("", "x", "5d", "-1s", "0s", "inf", "nan", "1e99h"):
        with pytest.raises(UsageError):
            seconds(word)


def test_changes_are_laid_over_what_there_is() -> None:
    now: dict[str, Any] = {"memory": {"limit": 1, "swap": 2}, "pids": {"limit": 3}, "devices": [1]}
    assert merged(now, {"memory": {"limit": 5}, "devices": [2], "cpu": {"shares": 4}}) == {
        "memory": {"limit": 5, "swap": 2},
        "pids": {"limit": 3},
        "devices": [2],
        "cpu": {"shares": 4},
    }
    assert now["memory"] == {"limit": 1, "swap": 2}


def test_the_judges_verdicts() -> None:
    clean = read_tap("TAP version 13\nok 1 - a\nok 2 # SKIP b\n1..2\n", 0)
    assert (clean.word, clean.held, clean.left_out, clean.failed) == ("clean", 1, 1, 0)
    assert read_tap("ok 1\nnot ok 2\n1..2\n", 0).word == "failing"
    assert read_tap("ok 1\n1..3\n", 0).word == "failing"
    assert read_tap("ok 1\n1..1\n", 1).word == "failing"
    assert read_tap("TAP version 13\n1..0\n", 0).word == "silent"
