"""The documentation: generated pages are current, the site builds, blocks are marked, commands parse, and paths exist."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from innkeeper.cli import parser
from manual import commands, man, proto
from manual.__main__ import GENERATED, REFERENCE
from tests import docs_blocks
from tests.needs import needs
from tests.paths import ROOT

COLUMNS = 100
UPDATE = "INNKEEPER_UPDATE_DOCS"
PROGRAMS = ("innkeeper", "./build.py", "build.py")
PATH = re.compile(r"`((?:agent|innkeeper|tests|manual|docs|rootfs|kernel-config)/[\w./-]+?)(?:::\w+)?`")
MODULE = re.compile(r"`((?:agent|innkeeper)\.[a-z_]\w*(?:\.\w+)*)`")
NOT_MODULES = (
    "agent.config_file",
    "agent.settings",
    "agent.sock",
    "innkeeper.img",
    "innkeeper.efi",
    "innkeeper.initrd",
    "innkeeper.landlock.abi",
    "innkeeper.v1.Guest",
)
"""Names like those of modules: a parameter of Kata's, a key of guest.toml, files, an annotation, a service."""
MADE_BY_READERS = ("rootfs/skeleton/etc/innkeeper", "rootfs/skeleton/etc/innkeeper/policy.toml")
"""Paths that pages tell a reader to make."""


@pytest.mark.parametrize("name", GENERATED)
def test_generated_page_is_current(name: str) -> None:
    text = GENERATED[name]()
    if os.environ.get(UPDATE):
        (REFERENCE / name).write_text(text)
    hint = f"docs/reference/{name} is out of date: run `python -m manual`, or this test with {UPDATE}=1"
    assert (REFERENCE / name).read_text() == text, hint


def test_every_rpc_and_option_is_described() -> None:
    for path in sorted((ROOT / "innkeeper/wire/proto").glob("*.proto")):
        for service in proto.read(path).services:
            assert service.methods, service.name
            assert [method.name for method in service.methods if not method.comment] == [], path.name
    for command in (*commands.innkeeper(), *commands.innkeeper_oci()):
        assert command.text, command.name
        assert [option.left for option in command.options if not option.right] == [], command.name


def test_a_man_page_for_each_command(tmp_path: Path) -> None:
    written = {path.stem: path.read_text() for path in man.write(REFERENCE, tmp_path)}
    assert {"innkeeper", "innkeeper-run", "innkeeper-kata-install", "innkeeper-oci", "innkeeper-oci-create"} <= set(written)
    run = written["innkeeper-run"]
    assert "\\fB\\-m, \\-\\-memory" in run
    assert [line for line in run.splitlines() if line.startswith(".SH")][:3] == [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"]
    assert all(page.startswith(".TH ") and "|" not in page.partition(".SH NAME")[2].partition("\n.SH")[0] for page in written.values())


@needs("module:mkdocs", "module:material")
def test_the_site_builds(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "site/tutorial/index.html").exists()


def test_blocks_with_commands_are_marked() -> None:
    known = {"run": 1, "file": 2, "needs": 1}
    for block in docs_blocks.all_blocks():
        if block.language in docs_blocks.COMMAND_LANGUAGES:
            assert block.kind in known, f"{block.where}: a block with commands needs a mark (tests/docs_blocks.py)"
        if block.kind == "needs":
            assert set(block.words) <= set(docs_blocks.NEEDS), f"{block.where}: {block.words}"
        if block.kind == "run":
            assert block.commands(), f"{block.where}: nothing to run"


@pytest.fixture(scope="module")
def command_line() -> Any:
    from innkeeper.cli import app

    return app.top()


def _invocations() -> Iterator[tuple[str, str]]:
    """Yield (place, command line) of each line of documentation, in a block or indented, that calls innkeeper."""
    for page in docs_blocks.pages():
        for number, line in enumerate(re.sub(r"\\\n(> )?", " ", page.read_text()).splitlines(), 1):
            line = re.sub(r"\s+(?:\d?>.*|&|#.*)$", "", line.strip().removeprefix("$ "))
            for part in (*re.split(r" \| |; | && ", re.sub(r"\$\([^)]*\)", "NAME", line)), *re.findall(r"\$\(([^)]*)\)", line)):
                if part.strip().startswith(tuple(f"{program} " for program in PROGRAMS)) and "[OPTIONS]" not in part:
                    yield f"{page.name}:{number}", part.strip()


def test_commands_in_the_documentation_parse(command_line: Any) -> None:
    """Every option that a page gives to a command exists, whether or not a test can run the command."""
    found = list(_invocations())
    assert len(found) > 40
    for place, text in found:
        words = [word for word in shlex.split(text)[1:] if word not in ("...", "&")]
        _parse(command_line, words, f"{place}: {text}")


def _parse(command: Any, words: list[str], place: str) -> None:
    while hasattr(command, "commands"):
        verb = next((word for word in words if not word.startswith("-")), "")
        found = {one.name: one for one in command.commands}
        assert verb in found or not verb or verb.isupper(), f"{place}: no command {verb!r}"
        if verb not in found:
            return
        words = words[words.index(verb) + 1 :]
        command = found[verb]
    try:
        if not command.raw:
            parser.split(command, words)
    except parser.HelpWanted:
        pass
    except parser.UsageError as error:
        pytest.fail(f"{place}: {error}")


def test_paths_in_the_documentation_exist() -> None:
    """Pages name files of this tree; a rename has to find them."""
    for page in docs_blocks.pages():
        for path in PATH.findall(page.read_text()):
            assert (ROOT / path).exists() or path in MADE_BY_READERS, f"{page.relative_to(ROOT)} names {path}, which is not there"


def test_modules_in_the_documentation_exist() -> None:
    """Dotted names lead to a module, or to a name in one."""
    parameters = MODULE.findall((REFERENCE / "boot-parameters.md").read_text())
    found = 0
    for page in docs_blocks.pages():
        for name in MODULE.findall(page.read_text()):
            parts = name.split(".")
            places = [ROOT.joinpath(*parts[:length]) for length in range(2, len(parts) + 1)]
            is_module = any(place.is_dir() or place.with_suffix(".py").exists() for place in places)
            assert is_module or name in (*parameters, *NOT_MODULES), f"{page.relative_to(ROOT)} names {name}, which is not there"
            found += 1
    assert found > 50


def test_the_notes_on_commands_name_all_of_them() -> None:
    """docs/cli.md has a row for every command, and for every part of `bench`."""
    from bench.measure import PARTS
    from innkeeper.cli.app import COMMANDS

    text = (ROOT / "docs/cli.md").read_text()
    rows = text.split("## Commands\n")[1].split("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \| ", rows, re.M) for name in re.findall(r"`([a-z]+)", row)}
    assert sorted(named) == sorted(COMMANDS)
    parts = re.findall(r"^\| `(\w+)` \|", text.split("| `--only` | what |")[1].split("\n## ")[0], re.M)
    assert sorted(parts) == sorted((*PARTS, "against"))


def test_words_of_the_glossary_are_used() -> None:
    index = (ROOT / "docs/index.md").read_text()
    glossary = re.findall(r"^\| ([\w ]+) \|", index.split("| word | means |")[1], re.M)
    assert len(glossary) > 5
    others = " ".join(page.read_text() for page in docs_blocks.pages() if page.name != "index.md").lower()
    assert [word for word in glossary if word not in others] == []


def test_records_in_the_formats_page_are_those_of_the_code() -> None:
    from agent.oci.record import Record
    from agent.policy.parser import RULES
    from innkeeper.engine.records import Facts

    wanted: dict[str, tuple[str, ...]] = {
        "Container record": Facts._fields,
        "Record of the runtime command": tuple(field.name for field in fields(Record)),
        "Policy": ("version", "name", *RULES),
    }
    for heading, names in wanted.items():
        assert _fields(heading) == sorted(names), heading


def _fields(heading: str) -> list[str]:
    """Return the fields that a section of the formats page lists, sorted."""
    text = (ROOT / "docs/reference/formats.md").read_text()
    return sorted(re.findall(r"^\| `(\w+)`", text.split(f"## {heading}\n")[1].split("\n## ")[0], re.M))


def test_files_in_the_formats_page_are_those_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each format that is made without a VM, a document is made and compared."""
    from innkeeper import paths
    from innkeeper.guest import build_result, pins
    from innkeeper.guest.store import Store
    from innkeeper.installation import Installation
    from innkeeper.node.check import Finding
    from innkeeper.vm import pooled, template

    monkeypatch.setenv(paths.TEMPLATES_VARIABLE, str(tmp_path / "templates"))
    (tmp_path / "templates").mkdir()
    for name in ("ram", "state"):
        (tmp_path / name).touch()
    template.publish("key", tmp_path / "ram", tmp_path / "state", tmp_path / "kernel")
    assert _fields("Template") == sorted(json.loads((tmp_path / "templates/key/template.json").read_text()))

    Installation(tmp_path).save()
    assert _fields("Lists of installed files") == sorted(json.loads((tmp_path / "installed.json").read_text()))

    (tmp_path / "manifest.json").write_text('{"outputs": {}}')
    result = build_result.document(tmp_path, tmp_path / "manifest.json", Store(tmp_path / "store"))
    assert _fields("Result of a build") == sorted(result)

    lock = pins.document(ROOT / pins.NAME)
    assert _fields("Lock file") == sorted((*lock, *lock["architectures"]["x86_64"]))

    claim = json.loads(pooled.Claim("key", (), ()).encode())
    assert _fields("Socket of the pool") == sorted((*claim, "state", "busy", "failure"))

    events = re.findall(r"_event\(\"(\w+)\"(?: if failed else \"(\w+)\")?", (ROOT / "innkeeper/progress.py").read_text())
    assert _fields("Progress events") == sorted(name for pair in events for name in pair if name)

    checked = {field.name for field in fields(Finding)}
    assert checked <= set(_fields("Report of doctor"))


def _hand_written() -> list[str]:
    """Return every page of Markdown that `python -m manual` does not write, relative to the tree."""
    folders = ("docs", "examples", "innkeeper", "kernel-config", "rootfs", "tests")
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))]
    generated = {REFERENCE / name for name in GENERATED}
    return sorted(str(page.relative_to(ROOT)) for page in pages if page not in generated)


@pytest.mark.parametrize("page", _hand_written())
def test_lines_are_short(page: str) -> None:
    """README wholly; elsewhere a row of a table and the output of a command cannot be broken."""
    text = (ROOT / page).read_text()
    if page != "README.md":
        text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
    lines = enumerate(text.splitlines(), 1)
    long = [number for number, line in lines if len(line) > COLUMNS and (page == "README.md" or not line.startswith("|"))]
    assert not long, f"{page}: lines over {COLUMNS} columns: {long}"
