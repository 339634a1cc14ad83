"""A command starts at once: in one interpreter, with no module that `startup-modules.txt` does not list for it."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest

import build
from innkeeper.vm import registry
from innkeeper.wire.connection import SERVER, Connection, RequestReceived
from innkeeper.wire.envelope import Response
from tests.contract.fake_agent import listening
from tests.paths import ROOT

BUDGET = Path(__file__).with_name("startup-modules.txt")
FIRST = "import _frozen_importlib # frozen"
"""What each interpreter prints first if PYTHONVERBOSE is set."""


def listed(verb: str) -> set[str]:
    """The modules that a verb may import: those of every section whose heading names it."""
    modules: set[str] = set()
    here = False
    for line in BUDGET.read_text().splitlines():
        if line.startswith("["):
            here = verb in line.strip("[]").split()
        elif line and not line.startswith("#"):
            name, reason = line.split(maxsplit=1)
            assert reason, f"{name} has no reason"
            if here:
                modules.add(name)
    return modules


def imported(told: str) -> set[str]:
    """The modules that an interpreter says it imported, as the list has them: ours all, others by their package."""
    found: set[str] = set()
    for name in re.findall(r"^import '(.+?)' # ", told, re.MULTILINE):
        top, *below = name.split(".")
        if top in sys.stdlib_module_names:
            found |= {top} if not top.startswith("_") else set()
        else:
            found.add(name if top == "innkeeper" else ".".join([top, *below[:2]]).partition("._upb.")[0])
    return found


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A cache with an environment that has the packages of this one and no Python, and with a container whose agent agrees to all."""
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    folder = build.base_folder()
    packages = folder / "lib" / Path(os.__file__).parent.name
    packages.mkdir(parents=True)
    (packages / "site-packages").symlink_to(sysconfig.get_path("purelib"))
    (folder / build.COMPLETE).touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    entry = registry.create("web")
    facts = {"image": "busybox", "digest": "sha256:1", "status": "running", "started": 1e9, "detached": True}
    entry.update(container=facts, address=f"unix://{tmp_path}/agent.sock")
    (entry.folder / "spec.json").write_text(
        json.dumps({"process": {"env": ["A=1"], "cwd": "/", "user": {"uid": 1, "additionalGids": [2]}}})
    )
    (entry.folder / "container.log").write_text('{"time": "2001-09-09T01:46:40.000000Z", "stream": "stdout", "data": "hello\\n"}\n')
    with listening(tmp_path / "agent.sock", agree):
        yield {"PATH": f"{programs}:/usr/bin:/bin", "INNKEEPER_CACHE": str(tmp_path / "cache"), "PYTHONVERBOSE": "1"}
    entry.release()


def agree(sock: socket, _number: int) -> None:
    """Answer every call with an empty message, which is a success, the end of a stream, or a status of 0."""
    connection = Connection(SERVER)
    while data := sock.recv(1 << 16):
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceived):
                connection.send_response(event.stream, Response())
        sock.sendall(connection.data_to_send())


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("--version", "."),
        ("ps", " web"),
        ("ps -a --json", '"web"'),
        ("logs web", "hello"),
        ("inspect web", '"guest"'),
        ("exec web true", ""),
    ],
)
def test_a_command_imports_what_is_listed_for_it_in_one_interpreter(words: str, output: str, environment: dict[str, str]) -> None:
    done = subprocess.run([ROOT / "build.py", *words.split()], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert output in done.stdout
    assert done.stderr.count(FIRST) == 1
    found, allowed = imported(done.stderr), listed(words.split()[0])
    assert found - allowed == set(), "what is new costs every user's time: import it where it is used, or list it with its reason"
    assert {name for name in allowed - found if name.startswith("innkeeper")} == set(), "no longer imported"


@pytest.mark.parametrize(
    "argv", [[sys.executable, str(ROOT / "build.py"), "ps"], [str(ROOT / "build.py"), "test", "--help"]], ids=["site", "test"]
)
def test_what_needs_more_packages_is_run_by_the_python_of_the_environment(argv: list[str], environment: dict[str, str]) -> None:
    """That is after `python3 build.py`, whose interpreter has the packages of the host, and for `test`."""
    base = Path(build.base_folder())
    base.rename(base.with_name(f"{base.name}-test"))
    python = base.with_name(f"{base.name}-test") / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$PYTHONPATH: $*"\n')
    python.chmod(0o755)
    done = subprocess.run(argv, env={**environment, "PYTHONPATH": "/mine"}, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{ROOT}:/mine: -P -m innkeeper.cli {' '.join(argv[argv.index(str(ROOT / 'build.py')) + 1 :])}\n", done.stderr


def test_a_run_of_what_is_built_and_fetched_imports_nothing_of_the_build() -> None:
    """Neither what converts an image nor what hashes by OpenSSL, makes pickles, or runs other programs of the build."""
    unwanted = ["innkeeper.guest.pipeline", "innkeeper.guest.builder", "innkeeper.image.layer", "innkeeper.image.erofs"]
    unwanted += ["innkeeper.engine.monitor", "innkeeper.engine.snapshots", "concurrent.futures", "hashlib", "pickle", "tempfile", "uuid"]
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {sysconfig.get_path("purelib")!r}]
from innkeeper.cli import run
from innkeeper.engine import attach, host, resolve, session
from innkeeper.image import block_device
print(*sorted(set({unwanted}) & set(sys.modules)))
"""
    done = subprocess.run([os.path.realpath(sys.executable), "-S", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
