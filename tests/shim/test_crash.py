"""kill -9 of everything there is, in every state: containerd tells the truth soon, and nothing stays.

A few rounds with chosen states and victims, and 200 at random, whose seed is in the output of a failure.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.eventually import pause, poll, retry
from tests.needs import needs
from tests.shim.node import IMAGE, SECONDS, Node, leftovers

pytestmark = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.vm,
    needs("root", "ctr", "virtiofsd", "setpriv", "nsenter", "ip", "busybox", "cni", "iptables-save", "go", "mke2fs", "module:pyroute2"),
]
VICTIMS = ("shim", "qemu", "virtiofsd", "containerd")
SOON = 15.0
"""Seconds until the API tells the truth. A loaded machine emulates the guest beside it."""
GONE_SECONDS = 75.0
"""Seconds until nothing is left: a shim whose containerd died before it connected ends after a minute."""
ROUNDS = 200
HANDLERS = {"innkeeper": 6.0, "template": 2.0}
"""How the VM starts: it boots, or it starts from a template. A creation is disturbed within these seconds."""


@dataclass
class Round:
    """A container in one state, in which one victim is killed."""

    node: Node
    id: str
    victim: str
    delay: float
    handler: str = "innkeeper"
    pod: str = ""

    def pids(self, name: str) -> list[int]:
        """The processes of this container that are a `name` of VICTIMS."""
        if name == "containerd":
            return [self.node.daemon_pid]
        owner = self.pod or self.id
        folder = self.node.folder / "vms" / ("k8s.io" if self.pod else "default") / owner
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
                # virtiofsd leaves the folder that it was started in, and has it in its arguments.
                mine = os.readlink(process / "cwd") == str(folder) or any(f"={folder}/" in word for word in words)
                shim = owner in words and "start" in words
                if (mine and (process / "comm").read_text().startswith(name)) or (name == "shim" and shim):
                    found.append(int(process.name))
        return found

    def kill(self) -> bool:
        """Kill the victim. Return whether there was one."""
        name = "qemu-system" if self.victim == "qemu" else self.victim
        pids = self.pids(name)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.victim == "containerd":
            self.node.lost()
            self.node.start()
        return bool(pids)

    def words(self) -> list[str]:
        """The client's words that run a container that goes on."""
        options = ("--runtime-config-path", str(self.node.folder / "template.toml")) if self.handler == "template" else ()
        return [*self.node.run_words("--detach", *options, self.id), "sleep", "1000"]

    def run(self) -> None:
        """Run a container that goes on."""
        self.node.ctr(*self.words())

    def check_ended(self) -> None:
        """The API says that the container has ended, unless only containerd was killed: then it goes on."""
        if self.victim == "containerd":
            assert self.node.tasks() == {self.id: "RUNNING"}
            assert self.works()
        else:
            assert poll(self.has_ended, SOON), self.node.tasks()

    def has_ended(self) -> bool:
        return self.node.tasks().get(self.id) in (None, "STOPPED")

    def works(self) -> bool:
        return self.node.try_ctr("task", "exec", "--exec-id", "after", self.id, "echo", "here").stdout == "here\n"


def creating(round: Round) -> None:
    with subprocess.Popen(
        round.node.argv(*round.words()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as client:
        pause(round.delay, "the creation is under way, and is killed at any moment of it")
        killed = round.kill()
        error = client.communicate(timeout=SECONDS)[1]
    if killed and round.victim in ("qemu", "virtiofsd") and round.handler == "template" and client.returncode == 0 and round.works():
        return  # it was lost while it started from the template, and was booted instead
    if killed and round.victim != "containerd":
        assert poll(round.has_ended, SOON), (round.node.tasks(), error)


def running(round: Round) -> None:
    round.run()
    assert round.kill()
    round.check_ended()


def executing(round: Round) -> None:
    round.run()
    argv = round.node.argv("task", "exec", "--exec-id", "e", round.id, "sh", "-c", "echo begun; sleep 1000")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begun\n"
        assert round.kill()
        if round.victim == "containerd":
            client.kill()
        client.communicate(timeout=SECONDS)
    round.check_ended()


def stopping(round: Round) -> None:
    round.run()
    round.node.ctr("task", "kill", "--signal", "KILL", round.id)
    pause(round.delay / 20, "the VM is ending, and is killed at any moment of it")
    round.kill()
    assert poll(round.has_ended, SOON), round.node.tasks()


def created(round: Round) -> None:
    """A pod whose container was not started yet: it has a VM, and CRI knows of the container."""
    node, folder = round.node, round.node.folder
    pod, container = folder / "pod.json", folder / "container.json"
    metadata = {"name": round.id, "namespace": "default", "uid": round.id, "attempt": 1}
    linux = {"security_context": {"namespace_options": {"pid": 1}}}
    pod.write_text(json.dumps({"metadata": metadata, "linux": linux}))
    container.write_text(json.dumps({"metadata": {"name": "c"}, "image": {"image": IMAGE}, "command": ["sleep", "1000"], "linux": linux}))
    round.pod = node.crictl("runp", "--runtime", round.handler, pod).strip()
    node.groups.add(("k8s.io", round.pod))
    id = node.crictl("create", "--no-pull", round.pod, container, pod).strip()
    try:
        assert round.kill()
        if round.victim != "containerd":
            assert poll(lambda: state_of(node, "inspectp", round.pod) == "SANDBOX_NOTREADY", SOON), state_of(node, "inspectp", round.pod)
            with pytest.raises(AssertionError, match=r"ended|is not running"):
                node.crictl("start", id)
        else:
            retry(lambda: node.crictl("version"), AssertionError)  # CRI answers later than containerd
            node.crictl("start", id)
    finally:
        node.crictl("stopp", round.pod)
        node.crictl("rmp", round.pod)


def state_of(node: Node, verb: str, id: str) -> str:
    return str(json.loads(node.crictl(verb, id))["status"]["state"])


STATES: dict[str, Callable[[Round], None]] = {state.__name__: state for state in (creating, created, running, executing, stopping)}
CHOSEN = (
    ("creating", "shim", 3.0),
    ("created", "virtiofsd", 0.0),
    ("running", "qemu", 0.0),
    ("executing", "containerd", 0.0),
    ("stopping", "shim", 0.4),
)
"""Each state, each victim."""


def play(node: Node, state: str, round: Round) -> None:
    """Play one round. Afterwards there is nothing more than before, or nothing that the next start does not take away."""
    before = leftovers(node)
    STATES[state](round)
    node.end_all()
    assert node.tasks() == {}
    poll(lambda: not leftovers(node) - before, GONE_SECONDS, every=0.2)
    if (state, round.victim) == ("creating", "shim") and leftovers(node) - before == {f"socket of {round.id}"}:
        # It was killed after it had made its socket and before containerd was connected, which then asks nobody
        # to clean up. The next shim of that container takes the socket's place.
        round.run()
        node.end_all()
        poll(lambda: not leftovers(node) - before, GONE_SECONDS, every=0.2)
    assert leftovers(node) - before == set()


@pytest.mark.parametrize(("state", "victim", "delay"), CHOSEN)
def test_kill(node: Node, state: str, victim: str, delay: float) -> None:
    play(node, state, Round(node, "crash", victim, delay))


def test_at_random(node: Node) -> None:
    seed = int(os.environ.get("INNKEEPER_TEST_SEED") or time.time())
    chance = random.Random(seed)
    template = node.make_template()
    for number in range(int(os.environ.get("INNKEEPER_TEST_ROUNDS") or ROUNDS)):
        state, victim, handler = chance.choice(list(STATES)), chance.choice(VICTIMS), chance.choice(list(HANDLERS))
        delay = chance.uniform(0, HANDLERS[handler])
        print(f"seed {seed} round {number}: {state} {victim} {handler} {delay:.2f}", flush=True)
        play(node, state, Round(node, f"crash-{number}", victim, delay, handler))
    assert template.is_dir()  # a kill is not its fault
