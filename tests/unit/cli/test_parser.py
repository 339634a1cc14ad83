"""Words of the command line become parameters as docker's parser makes them, or are refused by name; help shows the table."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from innkeeper import paths
from innkeeper.cli import app, completion, parser
from innkeeper.cli.flags import Argument, Command, Group, repeated, single, switch, words
from innkeeper.errors import InnkeeperError
from tests.paths import ROOT


def do(**given: Any) -> int:
    """Do it.

    The second paragraph.
    """
    return 0


FLAGS = (
    switch("interactive", "-i", "--interactive", help="Keep it open."),
    switch("tty", "-t", "--tty", help="A terminal."),
    repeated("ports", "-p", "--publish", metavar="PORT", help="A port."),
    single("name", "--name", help="A name."),
    single("count", "-n", "--count", kind=int, minimum=0, maximum=9, default=3, help="How many."),
    single("mode", "--mode", choices=("a", "b"), help="Which."),
    single("host", "-h", "--hostname", help="A host name."),
)
RUN = Command(
    name="run",
    run=do,
    arguments=(Argument(field="image", metavar="IMAGE"), words("command", "[COMMAND...]", required=False)),
    flags=FLAGS,
    examples=("run x",),
    interspersed=False,
)
REMOVE = Command(name="rm", run=do, arguments=(words("names", "NAME..."),), flags=(switch("force", "-f", "--force", help="All."),))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("image", {"image": "image"}),
        ("-it image sh -c -i", {"interactive": True, "tty": True, "image": "image", "command": ["sh", "-c", "-i"]}),
        ("-p80 -p 81 --publish=82 image", {"ports": ["80", "81", "82"], "image": "image"}),
        ("-itp 80 image", {"interactive": True, "tty": True, "ports": ["80"], "image": "image"}),
        ("--name -x image", {"name": "-x", "image": "image"}),
        ("--name= image", {"name": "", "image": "image"}),
        ("--name a --name b image", {"name": "b", "image": "image"}),
        ("-h host image --help", {"host": "host", "image": "image", "command": ["--help"]}),
        ("-- image -- x", {"image": "image", "command": ["--", "x"]}),
        ("-n 9 --mode b image", {"count": 9, "mode": "b", "image": "image"}),
    ],
)
def test_words(given: str, expected: dict[str, Any]) -> None:
    assert parser.parse(RUN, given.split(), "build.py run") == expected


@pytest.mark.parametrize("given", ["a b -f", "-f a b", "a --force b"])
def test_flags_between_arguments(given: str) -> None:
    assert parser.parse(REMOVE, given.split(), "rm") == {"names": ["a", "b"], "force": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--foo image", "unknown flag: --foo"),
        ("-ix image", "unknown flag: -x"),
        ("--pub 80 image", "unknown flag: --pub, did you mean --publish?"),
        ("--pubish 80 image", "unknown flag: --pubish, did you mean --publish?"),
        ("--hostnam x image", "unknown flag: --hostnam, did you mean --hostname?"),
        ("image-less --name", ""),
        ("--name", "flag needs an argument: --name"),
        ("-p", "flag needs an argument: -p"),
        ("--tty=yes image", "flag takes no argument: --tty"),
        ("-n many image", "-n many: not a number"),
        ("--count -1 image", "--count -1: must be at least 0"),
        ("--count 10 image", "--count 10: must be at most 9"),
        ("--mode c image", "--mode c: choose one of a, b"),
        ("-i", "run: IMAGE is missing"),
    ],
)
def test_refused_by_name(given: str, message: str) -> None:
    if not message:  # what follows the first argument is not ours
        assert parser.parse(RUN, given.split(), "run")["command"] == ["--name"]
        return
    with pytest.raises(InnkeeperError) as caught:
        parser.parse(RUN, given.split(), "build.py run")
    assert (caught.value.message, caught.value.hint, caught.value.exit_status) == (message, "see build.py run --help", 125)


PRIVILEGED = (
    "--privileged is not supported: a container is granted single privileges only",
    "name what it needs: --cap-add CAP, --security-opt seccomp=FILE|unconfined, apparmor=unconfined or systempaths=unconfined",
)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ("run --privileged image", *PRIVILEGED),
        ("run --rm --privileged=true image", *PRIVILEGED),
        (
            "run --device /dev/kvm image",
            "--device is not supported: a container sees the devices of its VM, which has none of the host's",
            "share files of the host with -v",
        ),
        (
            "exec --privileged name id",
            "--privileged is not supported: a process gets no more privileges than its container has",
            "start the container with what it needs: --cap-add CAP, --security-opt OPT",
        ),
    ],
)
def test_flags_of_docker_that_are_left_out_by_design(given: str, message: str, hint: str) -> None:
    with pytest.raises(InnkeeperError) as caught:
        app.run_app(given.split())
    assert (caught.value.message, caught.value.hint, caught.value.exit_status) == (message, hint, 125)


def test_what_is_refused_is_no_flag_and_its_answer_names_flags_that_exist() -> None:
    refusing = [command for command in _every_command(app.all_commands()) if getattr(command, "refused", ())]
    assert {command.name for command in refusing} == {"run", "exec"}
    known = {name for name, _ in parser.all_flags(app.find("run")) for name in name.replace(",", "").split() if name.startswith("-")}
    for command in refusing:
        names = {name for flag in command.flags for name in flag.names}
        for refused in command.refused:
            assert refused.name not in names
            assert set(re.findall(r"(?<!\S)-[-a-z]+", refused.instead)) <= known


@pytest.mark.parametrize(
    ("called", "source_tree", "name"),
    [
        ("/usr/bin/innkeeper", True, "innkeeper"),
        ("./build.py", True, "build.py"),
        ("/src/innkeeper/engine/monitor.py", True, "build.py"),
        ("/lib/innkeeper/engine/monitor.py", False, "innkeeper"),
        ("-c", False, "innkeeper"),
    ],
)
def test_the_program_is_named_as_the_user_calls_it(
    called: str, source_tree: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "project_root", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", [called])
    if source_tree:
        (tmp_path / "build.py").touch()
    assert paths.program_name() == name


def test_too_many_arguments() -> None:
    with pytest.raises(InnkeeperError, match="unexpected argument 'b'"):
        parser.parse(Command(name="one", run=do, arguments=(Argument(field="a", metavar="A"),)), ["a", "b"], "one")


@pytest.mark.parametrize(("command", "given"), [(RUN, "--help"), (REMOVE, "-h"), (REMOVE, "x --help")])
def test_help_is_asked_for(command: Command, given: str) -> None:
    with pytest.raises(parser.HelpWanted):
        parser.parse(command, given.split(), command.name)


def test_help() -> None:
    text = parser.help_text(RUN, "build.py")
    assert text.startswith("Usage: build.py run [OPTIONS] IMAGE [COMMAND...]\n\n  Do it.\n\n  The second paragraph.\n\n")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "-p, --publish PORT A port. May be given more than once." in lines
    assert "-n, --count N How many. [default: 3]" in lines
    assert "--help Show this message and exit." in lines  # -h is the host name
    assert text.endswith("Examples:\n  build.py run x")
    nested = parser.help_text(RUN._replace(name="install", examples=("cat x | kata install", "rm $(build.py ps -q)")), "innkeeper kata")
    assert nested.endswith("Examples:\n  cat x | innkeeper kata install\n  rm $(innkeeper ps -q)")


def _every_command(commands: Any) -> Any:
    for command in commands:
        yield command
        yield from _every_command(getattr(command, "commands", ()))


def test_every_command_has_a_help_of_lines_that_fit() -> None:
    for command in _every_command(app.all_commands()):
        text = parser.help_text(command, "build.py")
        assert all(len(line) <= 120 for line in text.splitlines()), command.name
        assert command.text, command.name
        if isinstance(command, Command):
            assert not [argument for argument in command.arguments[:-1] if argument.many], "only the last one takes all words"


def test_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run_app(["kata"]) == 0
    assert "  uninstall  " in capsys.readouterr().out
    with pytest.raises(InnkeeperError, match="kata nothing: not a command"):
        app.run_app(["kata", "nothing"])
    with pytest.raises(InnkeeperError, match="nothing is not a command"):
        app.run_app(["nothing"])
    assert isinstance(app.find("kata"), Group)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_names_commands_and_flags(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    completion.completion(shell)
    text = capsys.readouterr().out
    assert "publish" in text
    assert "uninstall" in text
    if shell == "bash":
        done = subprocess.run(
            ["bash", "-c", f"{text}\nCOMP_WORDS=(innkeeper run --pub); COMP_CWORD=2; _innkeeper; echo ${{COMPREPLY[@]}}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "--publish --publish-all\n"


HEAVY = ("typing_extensions", "rich", "google", "argparse", "asyncio", "innkeeper.client", "innkeeper.vm.vm", "innkeeper.guest.pipeline")


@pytest.mark.parametrize("verb", ["--help", "run --help"])
def test_a_help_imports_nothing_heavy(verb: str, tmp_path: Any) -> None:
    """It imports the files of commands, and so what these import at their top. For what commands run see test_start.py."""
    program = f"""
import sys
from innkeeper.cli import main
main({verb.split()!r})
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "INNKEEPER_CACHE": str(tmp_path), "HOME": str(tmp_path)},
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
