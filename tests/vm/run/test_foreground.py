"""`run` in the foreground: output, input, exit status, and docker's flags."""

import hashlib
import os
import platform
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.images import busybox_image, debian_image
from tests.vm.command import ARGV, environment, innkeeper, succeed

pytestmark = pytest.mark.vm


def test_a_debian_image_reports_the_guest_kernel_and_chooses_its_status() -> None:
    program = "import platform, sys; print(platform.release()); print('aside', file=sys.stderr); sys.exit(42)"
    done = innkeeper("-q", "run", "--rm", debian_image(), "python3", "-c", program)
    assert done.returncode == 42, done.stderr
    assert done.stdout.startswith(b"6.12.")
    assert done.stdout.strip().decode() != platform.release()
    assert b"aside" in done.stderr


def test_a_hundred_megabytes_of_input_arrive_whole(start: str, tmp_path: Path) -> None:
    """From a file into a VM that boots, and through a pipe into a clone: it is half a minute each."""
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()
    path = tmp_path / "data"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(block)
            digest.update(block)
    with path.open("rb") as file:
        feeder = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) if start == "template" else None
        done = innkeeper("run", "--rm", "-i", busybox_image(), "sha256sum", stdin=feeder.stdout if feeder else file)
        if feeder is not None:
            assert feeder.stdout is not None
            feeder.stdout.close()
            feeder.wait()
    assert done.stdout.split()[:1] == [digest.hexdigest().encode()], done.stderr


def test_much_output_arrives_whole() -> None:
    done = innkeeper("run", "--rm", busybox_image(), "sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; echo done >&2")
    assert (done.returncode, len(done.stdout), set(done.stdout)) == (0, 30_000_000, {ord("x")})
    assert done.stderr.rstrip().endswith(b"done")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sh", "-c", "kill -TERM $$; sleep 5"), 0),  # PID 1 has no handler, so the kernel drops it: the sleep ends the shell
        (("sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"), 128 + signal.SIGSEGV),
        (("/no/such/program",), 127),
        (("/etc/passwd",), 126),
    ],
)
def test_exit_status(command: tuple[str, ...], status: int) -> None:
    done = innkeeper("run", "--rm", busybox_image(), *command)
    assert done.returncode == status, done.stderr


def test_a_signal_to_the_command_line_reaches_the_container() -> None:
    argv = [*ARGV, "run", "--rm", "--init", busybox_image(), "sh", "-c", "echo ready; sleep 300"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=60) == 128 + signal.SIGTERM


def test_a_reader_that_leaves_ends_the_run() -> None:
    script = "exec 3>&1; {} run --rm {} yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    text = script.format(" ".join(ARGV), busybox_image())
    done = subprocess.run(["bash", "-c", text], capture_output=True, env=environment(), timeout=120, check=False)
    assert done.stdout.split() == [b"y", str(128 + signal.SIGPIPE).encode()], done.stderr


def test_flags_of_the_process(tmp_path: Path) -> None:
    variables = tmp_path / "variables"
    variables.write_text("# a comment\nFROM_FILE=1 2\n")
    script = 'id -u; id -g; pwd; hostname; echo "$FROM_FILE/$GIVEN"; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; id -G'
    flags = ["-u", "guest", "-w", "/tmp", "--hostname", "inn", "--env-file", str(variables), "-e", "GIVEN=x"]
    flags += ["--ulimit", "nofile=77:99", "--sysctl", "net.ipv4.ip_unprivileged_port_start=7"]
    told = succeed("run", "--rm", *flags, busybox_image(), "sh", "-c", script)
    assert told.splitlines() == ["1000", "1000", "/tmp", "inn", "1 2/x", "77", "7", "1000 29"]


def test_flags_of_the_file_system(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/greeting").write_text("from the host\n")
    (tmp_path / "single").write_text("one file\n")
    script = (
        "cat /data/greeting /single; echo from the guest >/data/answer; "
        "touch /fixed/x 2>/dev/null && echo written; touch /x 2>/dev/null && echo root written; "
        "echo kept >/scratch/file && cat /scratch/file; ls /fixed"
    )
    volumes = ["-v", f"{tmp_path}/shared:/data", "-v", f"{tmp_path}/single:/single", "-v", f"{tmp_path}/shared:/fixed:ro"]
    told = succeed("run", "--rm", "--read-only", "--tmpfs", "/scratch", *volumes, busybox_image(), "sh", "-c", script)
    assert told.splitlines() == ["from the host", "one file", "kept", "answer", "greeting"]
    assert (tmp_path / "shared/answer").read_text() == "from the guest\n"


MAPPED = """
import mmap, os, time
def fill(name):
    with open(f"/data/{name}", "w+b") as file:
        file.truncate(SIZE)
        mapped = mmap.mmap(file.fileno(), SIZE)
    mapped.write(b"m" * SIZE)
    return mapped
reader, writer = os.pipe()
if not os.fork():
    held = fill("killed")
    os.write(writer, b"1")
    time.sleep(1000)
held = fill("ended")
os.read(reader, 1)
os._exit(0)
"""


def test_what_programs_had_mapped_of_a_folder_is_written(tmp_path: Path) -> None:
    """By the one that ends, and by the one that is killed with the container."""
    size = 24 << 20
    succeed("run", "--rm", "-v", f"{tmp_path}:/data", debian_image(), "python3", "-c", MAPPED.replace("SIZE", str(size)))
    for name in ("ended", "killed"):
        assert (tmp_path / name).read_bytes() == b"m" * size


def test_limits_hold() -> None:
    script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max; tail -c 300000000 /dev/zero >/dev/null; exit $?"
    limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"]
    done = innkeeper("run", "--rm", *limits, busybox_image(), "sh", "-c", script)
    assert done.stdout.decode().splitlines() == [str(64 << 20), "50000 100000", "50"]
    assert done.returncode == 128 + signal.SIGKILL, done.stderr


def test_more_can_be_written_than_the_machine_has_memory() -> None:
    script = "dd if=/dev/zero of=/big bs=1M count=400 2>/dev/null && sync && stat -c %s /big"
    assert succeed("run", "--rm", "--vm-memory", "256m", busybox_image(), "sh", "-c", script).split() == [str(400 << 20)]


def test_names_are_resolved_and_connections_go_out() -> None:
    """The host's own name server answers through QEMU's; a server of ours on the host is reached at 10.0.2.2."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            caller, _ = server.accept()
            with caller:
                caller.recv(100)
                caller.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")

        threading.Thread(target=answer, daemon=True).start()
        port = server.getsockname()[1]
        script = f"wget -q -O - http://10.0.2.2:{port}/; cat /etc/resolv.conf; grep -c $(hostname) /etc/hosts"
        told = succeed("run", "--rm", busybox_image(), "sh", "-c", script).splitlines()
    assert told[0] == "hello"
    assert "nameserver 10.0.2.3" in told
    assert told[-1] == "1"


def test_without_a_network_there_is_only_loopback() -> None:
    assert succeed("run", "--rm", "--network", "none", busybox_image(), "ls", "/sys/class/net").split() == ["lo"]


def test_the_record_stays_without_rm_and_its_name_is_taken() -> None:
    name = f"kept-{os.getpid()}-{int(time.time())}"
    try:
        assert innkeeper("run", "--name", name, busybox_image(), "false").returncode == 1
        assert "Exited (1)" in next(line for line in succeed("ps", "-a").splitlines() if name in line)
        again = innkeeper("run", "--rm", "--name", name, busybox_image(), "true")
        assert again.returncode == 125
        assert b"is already in use by container" in again.stderr
    finally:
        succeed("rm", name)
    assert name not in succeed("ps", "-a")
