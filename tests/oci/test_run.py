"""`run` and `exec`: statuses, streams, descriptors, signals."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.needs import needs
from tests.oci.oci_helpers import Bundle, Runtime

pytestmark = [pytest.mark.root, needs("root", "cgroup2", "buildah", "mmdebstrap", "busybox")]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$; kill -KILL $$", 137), ("exit 255", 255)])
def test_the_status_of_run_is_the_programs(runtime: Runtime, bundle: Bundle, script: str, status: int) -> None:
    linux = bundle.document["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]
    done = runtime.try_("run", "-b", bundle.sh(f"echo out; echo err >&2; {script}").save("a"), "a")
    expected = 143 if "TERM" in script else status
    assert (done.returncode, done.stdout, done.stderr) == (expected, "out\n", "err\n")
    assert runtime("list", "-q") == ""


def test_a_program_that_is_not_there_fails_run(runtime: Runtime, bundle: Bundle) -> None:
    assert "none: not found (executable file not found in PATH)" in runtime.refuses("run", "-b", bundle.args("none").save("a"), "a")
    assert runtime("list", "-q") == ""


def test_keep_leaves_the_stopped_container(runtime: Runtime, bundle: Bundle) -> None:
    runtime("run", "--keep", "-b", bundle.save("a"), "a")
    assert runtime.status("a") == "stopped"
    runtime("delete", "a")


def test_signals_are_passed_on(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen(runtime.argv("run", "-b", bundle.save("a"), "a"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got\n"
        assert process.wait() == 5


def test_standard_input_is_the_callers(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as out:
        done = subprocess.run(runtime.argv("run", "-b", bundle.args("cat").save("a"), "a"), stdin=source, stdout=out, check=True)
    assert (done.returncode, (tmp_path / "out").read_bytes()) == (0, data)


def test_streams_are_the_users_but_never_the_null_device(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh("echo one >/proc/self/fd/1; stat -c %u /proc/self/fd/1 -L; stat -c %u -L /dev/fd/0", user={"uid": 1000, "gid": 1000})
    read, write = os.pipe()
    done = subprocess.run(runtime.argv("run", "-b", bundle.save("a"), "a"), stdin=subprocess.DEVNULL, stdout=write, check=False)
    os.close(write)
    with os.fdopen(read) as file:
        assert (done.returncode, file.read()) == (0, "one\n1000\n0\n")
    assert os.stat("/dev/null").st_uid == 0


def test_passed_descriptors_and_no_others(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """3 and 4 are asked for; 5 is open in the caller and is not passed on."""
    for number in (3, 4, 5):
        (tmp_path / str(number)).write_text(f"file {number}\n")
    bundle.sh("cat <&3; cat <&4; for fd in /proc/self/fd/*; do echo ${fd##*/}; done")
    shell = 'exec 3<"$1/3" 4<"$1/4" 5<"$1/5"; shift; exec "$@"'

    def through(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        argv = ["sh", "-c", shell, "sh", str(tmp_path), *runtime.argv(*words)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    done = through("run", "--preserve-fds", "2", "-b", bundle.save("a"), "a")
    assert done.returncode == 0, done.stderr
    first, second, *fds = done.stdout.split("\n")
    assert (first, second) == ("file 3", "file 4")
    assert sorted(set(fds) - {""}) in (["0", "1", "2", "3", "4"], ["0", "1", "2", "3", "4", "5"])  # 5 is the shell's own, of the listing
    refused = through("run", "--preserve-fds", "4", "-b", bundle.path, "a")
    assert (refused.returncode, "descriptor 6 is not open" in refused.stderr) == (1, True)
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("b"), "b")
    done = through("exec", "--preserve-fds=1", "b", "sh", "-c", "cat <&3; cat <&4")
    assert done.stdout == "file 3\n"
    assert done.returncode != 0
    runtime("delete", "-f", "b")


def test_socket_activation(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.sh("echo $LISTEN_FDS $LISTEN_PID; cat <&3")
    (tmp_path / "f").write_text("passed\n")
    shell = 'exec 3<"$1"; shift; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    argv = ["sh", "-c", shell, "sh", str(tmp_path / "f"), *runtime.argv("run", "-b", bundle.save("a"), "a")]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "1 1\npassed\n"


def test_exec(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    done = runtime.try_("exec", "a", "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")
    assert runtime.try_("exec", "a", "sh", "-c", "kill -USR1 $$").returncode == 128 + signal.SIGUSR1
    assert "executable file not found" in runtime.refuses("exec", "a", "none", status=255)
    assert "--cwd" in runtime("exec", "a", "echo", "--cwd", "x")
    changed = runtime(
        "exec", "--cwd", "/tmp", "-e", "A=1", "--env", "B=2", "-u", "1000:1000", "-g", "7", "a", "sh", "-c", "pwd; echo $A$B; id -u; id -G"
    )
    assert changed.split() == ["/tmp", "12", "1000", "1000", "7"]
    assert "not a number" in runtime.refuses("exec", "--user", "app", "a", "true", status=255)
    document = {"args": ["sh", "-c", "pwd; exit 4"], "cwd": "/bin", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    (tmp_path / "process.json").write_text(json.dumps(document))
    done = runtime.try_("exec", "--process", tmp_path / "process.json", "a")
    assert (done.returncode, done.stdout) == (4, "/bin\n")
    assert "not JSON" in runtime.refuses("exec", "-p", "/etc/passwd", "a", status=255)
    runtime("delete", "-f", "a")


def test_exec_in_the_background(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    runtime("run", "-d", "-b", bundle.args("sleep", "1000").save("a"), "a")
    runtime("exec", "-d", "--pid-file", tmp_path / "pid", "a", "sleep", "2000")
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x002000\x00"
    assert json.loads(runtime("ps", "-f", "json", "a")) == [runtime.state("a")["pid"], pid]
    table = [line.split() for line in runtime("ps", "a").splitlines()]
    assert table[0] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [line[-1] for line in table[1:]] == ["1000", "2000"]
    by_ps = runtime("ps", "a", "-o", "pid,args").splitlines()
    assert [line.split()[-1] for line in by_ps[1:]] == ["1000", "2000"]
    runtime("delete", "-f", "a")


def test_exec_gets_the_capabilities_that_are_asked_for(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    kept = ["CAP_KILL", "CAP_CHOWN"]
    bundle.args("sleep", "1000", capabilities={"bounding": kept, "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]})
    runtime("run", "-d", "-b", bundle.save("a"), "a")
    show = ["grep", "CapEff", "/proc/self/status"]
    assert int(runtime("exec", "a", *show).split()[1], 16) == 1 << 5
    assert int(runtime("exec", "--cap", "CAP_CHOWN", "a", *show).split()[1], 16) == 1 << 5 | 1
    sets = runtime("exec", "--cap", "CAP_SYS_ADMIN", "a", "grep", "Cap...:", "/proc/self/status").split()[1::2]
    added = 1 << 21
    assert [int(mask, 16) for mask in sets] == [0, 1 << 5 | added, 1 << 5 | added, 1 << 5 | 1 | added, 0]
    names = ["CAP_SYS_ADMIN", "CAP_NET_RAW"]
    document = {"args": show, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": False}
    document["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    (tmp_path / "p.json").write_text(json.dumps(document))
    assert int(runtime("exec", "-p", tmp_path / "p.json", "a").split()[1], 16) == added | 1 << 13
    assert runtime("exec", "--no-new-privs", "a", "grep", "NoNewPrivs", "/proc/self/status").split() == ["NoNewPrivs:", "1"]
    runtime("delete", "-f", "a")


def test_what_is_left_behind_is_reaped(runtime: Runtime, bundle: Bundle) -> None:
    """A process that the container's first one leaves in its own group does not stay a zombie of the command's."""
    linux = bundle.document["linux"]
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]
    bundle.sh("(sleep 0.2; sleep 0.3 & ) & sleep 0.1; exit 3")
    assert runtime.try_("run", "-b", bundle.save("a"), "a").returncode == 3
    eventually(lambda: not runtime.group_of("a").exists())


def test_a_pidfd_for_whoever_listens(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """Of the first process and of another one, under the names that runc gives them."""
    bundle.args("sleep", "1000").save("a")
    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / "pidfd.sock"
        listener.bind(str(path))
        listener.listen()

        def received() -> tuple[bytes, int]:
            connection, _ = listener.accept()
            with connection:
                name, (fd,), _, _ = socket.recv_fds(connection, 64, 1)
            pid = next(line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if line.startswith("Pid:"))
            os.close(fd)
            return name, int(pid.split()[1])

        runtime("create", "--pidfd-socket", path, "-b", bundle.path, "a")
        assert received() == (b"standard", runtime.state("a")["pid"])
        runtime("delete", "-f", "a")
        runtime("run", "-d", "--pidfd-socket", path, "-b", bundle.path, "a")
        assert received() == (b"standard", runtime.state("a")["pid"])
        runtime("exec", "-d", "--pidfd-socket", path, "--pid-file", tmp_path / "pid", "a", "sleep", "1000")
        assert received() == (b"setns", int((tmp_path / "pid").read_text()))
    assert "--pidfd-socket" in runtime.refuses("exec", "--pidfd-socket", path, "a", "true", status=255)
    assert len(json.loads(runtime("ps", "-f", "json", "a"))) == 2
    runtime("delete", "-f", "a")
    assert "--pidfd-socket" in runtime.refuses("run", "--pidfd-socket", path, "-b", bundle.path, "a")
    assert runtime("list", "-q") == ""
