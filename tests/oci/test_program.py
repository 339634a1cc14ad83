"""The program itself: its package, its copy in memory, what it leaves out of the environments of others, and the same from source."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime, script, sealed_program_of

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_package_runs_where_it_is_unpacked(oci_program: Path, tmp_path: Path) -> None:
    package = oci_program.parents[3] / "innkeeper-oci.deb"
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path / "root"], check=True)
    fields = subprocess.run(["dpkg-deb", "--field", package], capture_output=True, text=True, check=True).stdout
    assert "Package: innkeeper-oci\n" in fields
    assert "Depends: libc6 (>= 2.36)\n" in fields
    program = tmp_path / "root/usr/bin/innkeeper-oci"
    assert subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.startswith("innkeeper-oci version ")
    for path in (tmp_path / "root").rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o022 if not path.is_symlink() else 0) == (0, 0, 0), path


def test_every_verb_is_in_the_frozen_program(runtime: Runtime) -> None:
    from agent.oci import command_table

    for name in command_table.MODULES:
        assert command_table.find(name).summary in runtime(name, "--help")


def test_a_container_never_reaches_the_programs_file(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2019-5736: what a container is made to execute, or finds as /proc/PID/exe, is a sealed copy."""
    library = runtime.program.resolve().parent
    before = _digests(library)
    write = "exec 3>/proc/self/exe || echo refused; for exe in /proc/[0-9]*/exe; do : >$exe; done 2>/dev/null; exit 0"
    for args in (["/proc/self/exe"], ["/proc/self/exe", "--version"], ["sh", "-c", write]):
        runtime.try_("run", "-b", bundle.args(*args, noNewPrivileges=False).save("a"), "a")
    bundle.args("sleep", "1000")
    runtime("create", "-b", bundle.save("a"), "a")
    pid = runtime.state("a")["pid"]
    assert sealed_program_of(pid)
    with pytest.raises(OSError, match=r"Text file busy|Operation not permitted"):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    runtime("start", "a")
    for _ in range(10):
        runtime.try_("exec", "a", "/proc/self/exe")
    runtime("delete", "-f", "a")
    assert _digests(library) == before


def test_what_started_it_is_in_nobodys_environment(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """The loader's variables are not for hooks, nor for programs of the host, nor for the container."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"env >{tmp_path}/hook"]}
    bundle.document["hooks"] = {"createRuntime": [hook], "poststop": [{**hook, "env": ["A=b"]}]}
    bundle.document["process"]["env"] = ["PATH=/bin", "ONLY=this"]
    out = runtime("run", "-b", bundle.args("env").save("a"), "a", env={**os.environ, "SECRET": "x"})
    assert set(out.split()) == {"PATH=/bin", "ONLY=this", "HOME=/root"}
    names = {line.partition("=")[0] for line in (tmp_path / "hook").read_text().split()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"A"}


@pytest.mark.parametrize("frozen", [True, False])
def test_text_is_utf8_in_every_locale(runtime: Runtime, bundle: Bundle, tmp_path: Path, frozen: bool) -> None:
    text = "\u00e9\u6f22\U0001f600"
    program = runtime if frozen else Runtime(script(tmp_path), runtime.root, runtime.group)
    bundle.args("sh", "-c", 'echo "$1 $V"; exec sleep 1000', "sh", text, env=["PATH=/bin", f"V={text}"])
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    with subprocess.Popen(program.argv("run", "-b", bundle.save("a"), "a"), stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{text} {text}\n".encode()
        program("exec", "-d", "a", "sleep", "1000", text, env=environment)
        assert "sleep 1000" in program("ps", "a", env=environment)
        runtime("kill", "a", "KILL")
        assert process.wait() == 137


def test_a_log_that_cannot_be_written_hides_nothing(runtime: Runtime) -> None:
    said = runtime.refuses("--log", "/none/log", "state", "a")
    assert said == "error: --log: /none/log: No such file or directory\nerror: container 'a' does not exist\n"


def test_the_same_from_the_source_tree(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """The console script: the interpreter's own file is what is copied."""
    source = Runtime(script(tmp_path), runtime.root, runtime.group)
    bundle.sh("echo out; exit 7")
    done = source.try_("run", "-b", bundle.save("a"), "a")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "")
    source("create", "-b", bundle.args("sleep", "1000").save("a"), "a")
    assert sealed_program_of(source.state("a")["pid"])
    assert json.loads(source("list", "--format", "json")) == json.loads(runtime("list", "--format", "json"))
    runtime("start", "a")
    assert source.try_("exec", "a", "sh", "-c", "exit 3").returncode == 3
    source("delete", "-f", "a")
