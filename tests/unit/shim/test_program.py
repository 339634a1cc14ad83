"""The program as containerd runs it, without a container: it answers, leaves its parent, serves, and ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

from innkeeper import __version__
from innkeeper.client import Client
from innkeeper.dial import connect_unix
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.wire.pb import empty_pb2
from tests.eventually import eventually
from tests.paths import ROOT

SECONDS = 60


def program(*words: str, bundle: Path, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run the program. This waits for the end of its output, as containerd does."""
    argv = [sys.executable, "-P", "-m", "innkeeper.shim.main", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, cwd=bundle, env=environment, input=data, capture_output=True, timeout=SECONDS, check=False)


def pids(socket: Path) -> list[int]:
    """Return the processes whose command line names the bundle of `socket`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(socket.parent) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_start_serves_and_shutdown_ends(tmp_path: Path) -> None:
    words = ("-namespace", "n", "-address", str(tmp_path / "c.sock"), "-publish-binary", "", "-id", "one", "start")
    params = pb.BootstrapParams(instance_id="one", namespace="n", socket_dir=str(tmp_path / "s")).SerializeToString()
    done = program(*words, bundle=tmp_path, data=params)
    assert (done.returncode, done.stderr) == (0, b"")
    result = pb.BootstrapResult.FromString(done.stdout)
    assert (tmp_path / "address").read_text() == result.address
    again = pb.BootstrapResult.FromString(program(*words, bundle=tmp_path, data=params).stdout)
    assert again.address == result.address
    path = Path(result.address.removeprefix("unix://"))
    (pid,) = pids(path.parent)
    assert os.getsid(pid) != os.getsid(0)
    assert {os.readlink(f"/proc/{pid}/fd/{descriptor}") for descriptor in (0, 1, 2)} == {os.devnull}
    with Client(connect_unix(str(path))) as client:
        client.call("containerd.task.v3.Task", "Shutdown", pb.ShutdownRequest(id="one"), empty_pb2.Empty, SECONDS)
    eventually(lambda: not path.exists() and not pids(path.parent))


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    assert __version__.encode() in program("-v", bundle=tmp_path).stdout
    info = pb.RuntimeInfo.FromString(program("-info", bundle=tmp_path).stdout)
    assert (info.name, info.version.version) == ("io.containerd.innkeeper.v2", __version__)
    assert info.features.type_url.endswith("/features/Features")
    assert "rro" in json.loads(info.features.value)["mountOptions"]


def test_delete_without_anything_to_delete(tmp_path: Path) -> None:
    done = program("-namespace", "n", "-id", "one", "-bundle", str(tmp_path), "delete", bundle=tmp_path)
    assert pb.DeleteResponse.FromString(done.stdout).exit_status == 137


def test_a_failure_is_one_line_on_standard_error(tmp_path: Path) -> None:
    done = program("-no-such", bundle=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"containerd-shim-innkeeper-v2: unknown option -no-such\n")
