"""nerdctl's containers are in a VM: its networks, which hooks set up, its published ports and its verbs."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests import go_helpers
from tests.eventually import retry
from tests.kubernetes.holder import ADDRESS, Holder
from tests.needs import needs
from tests.paths import ROOT
from tests.shim.containerds import of_go_module
from tests.shim.node import IMAGE, RUNTIME, SECONDS, Node, leftovers, remaining

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.vm,
    needs("root", "virtiofsd", "setpriv", "nsenter", "ip", "busybox", "cni", "iptables-save", "curl", "go", "module:pyroute2"),
]
WEB = "mkdir /w; echo hello > /w/index.html; echo begun; exec httpd -f -p 80 -h /w"


class Nerdctl:
    """The command, in the network namespace of a node: it leaves rules of the firewall there, and a bridge."""

    def __init__(self, node: Node, holder: Holder) -> None:
        self.node = node
        self._holder = holder
        program = go_helpers.build("test-nerdctl", ROOT / "tests/nerdctl", "github.com/containerd/nerdctl/v2/cmd/nerdctl") / "nerdctl"
        options = {"address": "c.sock", "data-root": "nerdctl", "cni-netconfpath": "networks"}
        places = [f"--{name}={node.folder}/{place}" for name, place in options.items()]
        self._argv = holder.argv(program, *places, "--cni-path=/usr/lib/cni", "--cgroup-manager=cgroupfs")
        self._environment = {**os.environ, "PATH": f"{node.folder}/bin:{os.environ['PATH']}"}

    def attempt(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the command, whatever comes of it."""
        argv = [*self._argv, *words]
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, env=self._environment, check=False
        )

    def __call__(self, *words: str) -> str:
        """Run a command that succeeds. Return its output."""
        done = self.attempt(*words)
        assert done.returncode == 0, (words, done.stderr, self.node.log.read_text()[-4000:])
        return done.stdout

    def run(self, *words: str) -> str:
        """Run a container in a VM: `words` are options, and a command after "--"."""
        end = words.index("--")
        return self("run", "--runtime", RUNTIME, *words[:end], IMAGE, *words[end + 1 :])

    def fetch(self, port: int) -> str:
        """Return what a web server answers at a port of the node."""
        argv = self._holder.argv("curl", "--silent", "--fail", "--max-time", "5", f"http://{ADDRESS}:{port}/")
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def rules(self) -> str:
        return subprocess.run(self._holder.argv("iptables-save"), capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def nerdctl() -> Iterator[Nerdctl]:
    folder = Path(mkdtemp(prefix="ink-", dir="/run"))
    holder = Holder(folder)
    node = Node(folder, of_go_module(), inside=holder.argv())
    try:
        node.up()
        yield Nerdctl(node, holder)
    finally:
        node.stop()
        left = remaining(node, set())
        holder.end()
        shutil.rmtree(folder)
    assert left == set()


@pytest.fixture
def clean(nerdctl: Nerdctl) -> Iterator[Nerdctl]:
    """No container, VM, mount or published port is there more than before."""
    before = leftovers(nerdctl.node)
    yield nerdctl
    for id in nerdctl("ps", "--all", "--quiet").split():
        nerdctl("rm", "--force", id)
    assert remaining(nerdctl.node, before) == set()
    assert "--dport" not in nerdctl.rules()


def test_a_network_with_a_published_port(clean: Nerdctl) -> None:
    clean.run("--detach", "--name", "web", "--hostname", "web", "--publish", "18080:80", "--", "sh", "-c", WEB)
    assert clean("port", "web") == "80/tcp -> 0.0.0.0:18080\n"
    assert retry(lambda: clean.fetch(18080), subprocess.CalledProcessError) == "hello\n"
    assert clean("logs", "web") == "begun\n"
    address = json.loads(clean("inspect", "web"))[0]["NetworkSettings"]["IPAddress"]
    assert f"{address}        web web\n" in clean("exec", "web", "cat", "/etc/hosts")
    assert f"inet {address}/24" in clean("exec", "web", "ip", "address", "show", "eth0")
    assert "default via " in clean("exec", "web", "ip", "route")
    assert "0B / 0B" in clean("stats", "--no-stream", "web")
    clean("restart", "--time", "1", "web")  # by the hooks after its end, and those for a creation
    assert retry(lambda: clean.fetch(18080), subprocess.CalledProcessError) == "hello\n"
    clean("stop", "--time", "1", "web")
    with pytest.raises(subprocess.CalledProcessError):
        clean.fetch(18080)


def test_without_a_network(clean: Nerdctl) -> None:
    assert clean.run("--rm", "--net", "none", "--", "ls", "/sys/class/net") == "lo\n"


def test_limits_volumes_and_users(clean: Nerdctl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    tmp_path.chmod(0o755)  # pytest's folders are its user's only
    options = ("--memory", "64m", "--volume", f"{tmp_path}:/v:ro", "--user", "1000:1000", "--read-only", "--cap-drop", "ALL")
    said = clean.run("--rm", *options, "--", "sh", "-c", "cat /v/file /sys/fs/cgroup/memory.max; id -u; touch /v/x 2>&1 || true")
    assert said == "content\n67108864\n1000\ntouch: /v/x: Read-only file system\n"


def test_the_hosts_network_is_refused_by_name(clean: Nerdctl) -> None:
    done = clean.attempt("run", "--rm", "--runtime", RUNTIME, "--net", "host", IMAGE, "true")
    assert done.returncode != 0
    assert "a container in a VM cannot use the host's network namespace" in done.stderr
