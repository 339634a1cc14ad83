"""Containers of `ctr`, each in a VM by our shim, under Debian's containerd."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from innkeeper import programs
from innkeeper.node import check
from tests.eventually import eventually
from tests.needs import needs
from tests.shim.node import SECONDS, Node

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.vm,
    needs("root", "ctr", "virtiofsd", "setpriv", "nsenter", "ip", "busybox", "module:pexpect"),
]
MIB = 1 << 20


def test_it_is_our_kernel(node: Node) -> None:
    done = node.run("kernel", "uname", "-r")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() != os.uname().release
    assert done.stdout.strip().endswith("-innkeeper")


def test_streams_and_status(node: Node) -> None:
    """A program that ends at once loses nothing; an id may have one letter."""
    done = node.run("x", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_input_that_ends_while_the_vm_boots(node: Node) -> None:
    data = bytes(range(256)) * (20 * MIB // 256)
    argv = node.argv(*node.run_words("--rm", "input"), "cat")
    done = subprocess.run(argv, input=data, capture_output=True, timeout=SECONDS, check=True)
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(data).hexdigest()


def test_a_root_that_is_bound(node: Node) -> None:
    options = ("--rm", "--snapshotter", "native")
    assert node.run("native", "sh", "-c", "echo written > /file; cat /file", options=options).stdout == "written\n"


def test_events_in_order_and_out_of_memory(node: Node) -> None:
    with subprocess.Popen(node.argv("events"), stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        options = ("--rm", "--memory-limit", str(16 * MIB))
        assert node.run("memory", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1", options=options).returncode == 137
        topics: list[str] = []
        for line in events.stdout:
            topics += [word.removeprefix("/tasks/") for word in line.split() if word.startswith("/tasks/")]
            if "/containers/delete" in line:
                break
        events.terminate()
    assert topics == ["create", "start", "oom", "exit", "delete"]


@pytest.fixture
def loop_device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """A file, and the block device that it is, attached with the options that are given."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"from the host\n".ljust(4 * MIB, b"\0"))
    losetup = "losetup"
    device = subprocess.run([losetup, "--find", "--show", *request.param, disk], capture_output=True, text=True, check=True).stdout.strip()
    try:
        yield disk, device
    finally:
        subprocess.run([losetup, "--detach", device], check=True)


@needs("loop")
@pytest.mark.parametrize("loop_device", [(), ("--read-only",)], ids=["writable", "read-only"], indirect=True)
def test_a_block_device(node: Node, loop_device: tuple[Path, str], request: pytest.FixtureRequest) -> None:
    disk, device = loop_device
    script = f"head -n 1 {device}; echo from the guest | dd of={device} conv=fsync 2>/dev/null && echo written"
    done = node.run("device", "sh", "-c", script, options=("--rm", "--device", device))
    writable = "--read-only" not in request.node.callspec.params["loop_device"]
    assert done.stdout.splitlines() == ["from the host", *(["written"] if writable else [])], done.stderr
    assert disk.read_bytes().startswith(b"from the guest\n" if writable else b"from the host\n")


def test_terminal(node: Node) -> None:
    argv = node.argv(*node.run_words("--rm", "--tty", "tty"), "sh", "-c", "tty; read line; echo got $line; exit 5")
    child = pexpect.spawn(argv[0], argv[1:], timeout=SECONDS, encoding="utf-8", dimensions=(30, 90))
    child.expect(r"/dev/pts/0\r+\n")
    child.sendline("word")
    child.expect(r"got word\r+\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5


def test_a_log_in_a_file(node: Node) -> None:
    log = node.folder / "container.log"
    node.ctr(*node.run_words("--detach", "--log-uri", f"file://{log}", "logged"), "sh", "-c", "echo to the file; sleep 1000")
    eventually(lambda: log.exists() and log.read_text() == "to the file\n")


def test_a_log_of_a_program(node: Node) -> None:
    log, program = node.folder / "program.log", node.folder / "logger"
    program.write_text('#!/bin/sh\nexec 5>&-\n{ echo "for $CONTAINER_NAMESPACE/$CONTAINER_ID"; cat <&3; cat <&4; echo end; } > "$2"\n')
    program.chmod(0o755)
    uri = f"binary://{program}?log={log}"
    node.ctr(*node.run_words("--detach", "--log-uri", uri, "program"), "sh", "-c", "echo out; echo err >&2")
    eventually(lambda: log.read_text() == "for default/program\nout\nerr\nend\n")


def test_exec_pause_update_kill(node: Node) -> None:
    options = ("--memory-limit", str(64 * MIB), "--cpu-shares", "512", "--apparmor-profile", "cri-containerd.apparmor.d")
    node.ctr(*node.run_words("--detach", *options, "life"), "sleep", "1000")
    assert node.tasks() == {"life": "RUNNING"}
    check_placement(node, "default/life", node.pid("life"))
    assert group_value("cpu", "default/life/cpu.shares") == "512"
    # The VM has 512 MiB by default, and so much more on the host.
    assert int(group_value("memory", "default/life/memory.limit_in_bytes")) == (512 + 256) * MIB
    exec_ = ("task", "exec", "--exec-id")
    assert node.try_ctr(*exec_, "e1", "life", "sh", "-c", "echo in; exit 9").returncode == 9
    assert node.ctr(*exec_, "e2", "--cwd", "/tmp", "life", "pwd") == "/tmp\n"
    assert node.ctr(*exec_, "e4", "life", "cat", "/proc/1/attr/current") == "innkeeper-default (enforce)\n"
    argv = node.argv(*exec_, "e3", "life", "wc", "-c")
    assert subprocess.run(argv, input=b"four", capture_output=True, timeout=SECONDS, check=True).stdout == b"4\n"
    child = pexpect.spawn(node.argv()[0], node.argv(*exec_, "e5", "--tty", "life", "sh", "-c", "tty; exit 6")[1:], timeout=SECONDS)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6
    assert len(node.ctr("task", "ps", "life").splitlines()) == 2
    assert str(64 * MIB) in node.ctr("task", "metrics", "--format", "json", "life")
    node.ctr("task", "pause", "life")
    assert node.tasks() == {"life": "PAUSED"}
    node.ctr("task", "resume", "life")
    assert node.tasks() == {"life": "RUNNING"}
    assert "not implemented" in node.try_ctr("task", "checkpoint", "life").stderr
    node.ctr("task", "kill", "--signal", "TERM", "life")
    eventually(lambda: node.tasks() == {"life": "STOPPED"})
    assert "not found" in node.try_ctr("task", "kill", "life").stderr
    assert "exit code 137" in node.try_ctr("task", "rm", "life").stderr


def group_value(controller: str, file: str) -> str:
    """What a file of a control group of version 1 holds."""
    return Path("/sys/fs/cgroup", controller, file).read_text().strip()


def check_placement(node: Node, group: str, qemu: int) -> None:
    """QEMU, virtiofsd and the shim are in `group` of the host, and nothing else is."""
    shim = node.shim_of(qemu)
    assert Path(f"/proc/{qemu}/oom_score_adj").read_text() == "0\n"
    for pid in (qemu, shim):
        paths = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if not line.startswith("0:")}
        assert paths == {f"/{group}"}
    pids = [int(pid) for pid in group_value("memory", f"{group}/cgroup.procs").split()]
    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids if pid not in (qemu, shim)}
    assert names == {"virtiofsd"}


def test_the_node_is_checked_by_what_is_installed(node: Node) -> None:
    argv: list[str | Path] = [node.folder / "opt/bin/innkeeper", "shim", "check", "--json", "--config", node.folder / "shim.toml"]
    done = subprocess.run(
        [*argv, "--address", node.folder / "c.sock"], cwd="/", capture_output=True, text=True, timeout=SECONDS, check=False
    )
    found = {one["name"]: one for one in json.loads(done.stdout)}
    works = ("configuration", "qemu-system-x86_64", "virtiofsd", "pyroute2", "containerd", "snapshotter overlayfs")
    assert [name for name in works if not found[name]["works"]] == []
    assert not found["KVM"]["works"] and not found["KVM"]["required"]
    assert done.returncode == int(any(one["required"] and not one["works"] for one in found.values()))


def test_containerd_reads_the_handlers_that_are_installed(node: Node) -> None:
    configuration = node.folder / "import.toml"
    configuration.write_text(f'version = 2\nimports = ["{node.folder}/etc/innkeeper/containerd-version-2.toml"]\n')
    argv = [str(programs.require("ctr").with_name("containerd")), "--config", str(configuration), "config", "dump"]
    dump = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    assert [(one.name, one.works) for one in check._handlers(dump)] == [("handler innkeeper", True)]


def test_what_cannot_be_is_refused_by_name(node: Node) -> None:
    for options, message in (
        (("--net-host",), "the host's network namespace"),
        (("--mount", "type=bind,src=/dev/null,dst=/x,options=rbind"), "/dev/null is neither a folder nor a regular file"),
        (("--log-uri", "binary:///no/such/logger"), "no such logging program: /no/such/logger"),
        (("--runtime-config-path", "/no/such.toml"), "/no/such.toml: No such file or directory"),
        (("--runtime-config-path", str(node.settings("bad.toml", kernel="/k", root="/r", typo=1))), "unknown key typo"),
    ):
        done = node.run("refused", "true", options=("--rm", *options))
        assert done.returncode != 0
        assert message in done.stderr
    assert "nosuch" in node.run("missing", "nosuch").stderr


def test_folders_and_files_of_the_host(node: Node) -> None:
    folder = node.folder / "given"
    folder.mkdir()
    (folder / "file").write_text("from the host\n")
    mounts = (f"type=bind,src={folder},dst=/data,options=rbind:rw", f"type=bind,src={folder / 'file'},dst=/one,options=rbind:ro")
    options = ("--rm", *(word for mount in mounts for word in ("--mount", mount)))
    done = node.run("volumes", "sh", "-c", "cat /data/file /one; echo back > /data/new; echo no > /one", options=options)
    assert done.stdout == "from the host\n" * 2
    assert "Read-only file system" in done.stderr
    assert (folder / "new").read_text() == "back\n"


def test_containerd_restarts_under_a_container(node: Node) -> None:
    node.ctr(*node.run_words("--detach", "kept"), "sleep", "1000")
    node.stop()
    node.start()
    assert node.tasks() == {"kept": "RUNNING"}
    assert node.ctr("task", "exec", "--exec-id", "e", "kept", "echo", "still here") == "still here\n"
