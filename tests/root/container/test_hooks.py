"""Hooks: when each runs and where, what it is given, and what follows from its failure."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.lifecycle import Status
from agent.errors import StepFailed, WrongState
from tests.root.container_helpers import Box, Document, finish

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]
OUTSIDE = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
NAMESPACES = ("mnt", "pid", "uts", "net", "ipc", "cgroup")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where hooks write what they see."""
    notes = tmp_path / "notes"
    notes.mkdir()
    return notes


@pytest.fixture
def bundled(box: Box, tmp_path: Path, own_root: Path) -> Box:
    """A box whose containers have a bundle directory; its root is its own, for places of the host's are mounted in it."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    return Box(own_root, HostContext(box.host.cgroup_root, box.host.state_dir, bundle=bundle), "box")


def hook(script: str, **fields: Any) -> Document:
    """A hook that is a shell script."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **fields}


def everything(notes: Path, kind: str) -> Document:
    """A hook that notes its state, environment, directory and namespaces. It uses builtins only: there is no PATH."""
    report = notes / kind
    links = " ".join(f"/proc/self/ns/{name}" for name in NAMESPACES)
    script = (
        f'read -r state; echo "$state" > {report}.state; /bin/cat < /proc/self/environ > {report}.env; pwd > {report}.cwd;'
        f" /bin/readlink {links} > {report}.ns; echo {kind} >> {notes}/order"
    )
    return hook(script, env=["A=1"])


def arguments(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def own_namespaces() -> list[str]:
    return [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]


def test_all_hooks_in_their_order_with_their_state(bundled: Box, notes: Path) -> None:
    doc = bundled.document("sh", "-c", f"echo program >> {notes}/order; echo $$")
    doc["annotations"] = {"com.example.key": 'a "pid": 0 value'}
    # Seen at the same place inside, so that the hook of the container's and the program can write there as well.
    doc["mounts"].append({"destination": str(notes), "type": "bind", "source": str(notes), "options": ["bind"]})
    doc["hooks"] = {kind: [everything(notes, kind)] for kind in (*OUTSIDE, "startContainer")}
    pids: list[int] = []

    async def main() -> Any:
        container = await bundled.create(doc)
        pids.append(container.init.pid)
        created = (notes / "order").read_text().split()
        await container.start()
        container.init.stdio.close_stdin()
        result = await finish(container.init)
        assert container.status is Status.STOPPED
        await container.remove()
        return created, result

    created, result = loop.run(main())
    assert result.status == 0
    assert created == ["prestart", "createRuntime", "createContainer"]
    order = (notes / "order").read_text().split()
    assert order[:4] == [*created, "startContainer"]
    assert sorted(order[4:6]) == ["poststart", "program"]
    assert order[6:] == ["poststop"]
    seen = {kind: json.loads((notes / f"{kind}.state").read_text()) for kind in (*OUTSIDE, "startContainer")}
    for state in seen.values():
        assert (state["id"], state["bundle"], state["annotations"]) == ("box", str(bundled.host.bundle), doc["annotations"])
        assert state["ociVersion"].startswith("1.")
    assert {kind: (state["status"], state["pid"]) for kind, state in seen.items()} == {
        "prestart": ("created", pids[0]),
        "createRuntime": ("created", pids[0]),
        "createContainer": ("created", 1),
        "startContainer": ("created", 1),
        "poststart": ("running", pids[0]),
        "poststop": ("stopped", 0),
    }


def test_where_hooks_are_and_what_they_see(bundled: Box, notes: Path) -> None:
    doc = bundled.document("true")
    doc["mounts"].append({"destination": str(notes), "type": "bind", "source": str(notes), "options": ["bind"]})
    doc["process"]["env"] += ["LD_PRELOAD=/evil.so", "SECRET=1"]
    doc["hooks"] = {kind: [everything(notes, kind)] for kind in (*OUTSIDE, "startContainer")}
    bundled.run(doc)
    for kind in ("prestart", "createRuntime", "poststart", "poststop"):
        assert (notes / f"{kind}.ns").read_text().split() == own_namespaces()
        assert (notes / f"{kind}.cwd").read_text().strip() == str(bundled.host.bundle)
    for kind in ("createContainer", "startContainer"):
        assert not set((notes / f"{kind}.ns").read_text().split()) & set(own_namespaces())
    for kind in (*OUTSIDE, "startContainer"):
        assert (notes / f"{kind}.env").read_bytes() == b"A=1\0", kind


def test_a_hook_of_the_container_is_found_outside_and_sees_its_mounts(bundled: Box, notes: Path) -> None:
    """Before the root is entered: the program is the runtime's, the directory is the container's root with all its mounts."""
    doc = bundled.document("true")
    script = f"/bin/ls -d proc/1 bin/busybox dev/null > {notes}/seen; [ -e {notes} ] && echo outside >> {notes}/seen"
    doc["hooks"] = {"createContainer": [hook(script)]}
    bundled.run(doc)
    assert (notes / "seen").read_text().split() == ["bin/busybox", "dev/null", "proc/1", "outside"]


def test_a_start_hook_has_the_programs_rights_and_environment(bundled: Box) -> None:
    values = "while read key value; do case $key in CapEff:|NoNewPrivs:|Seccomp:) echo $value;; esac; done < /proc/self/status"
    doc = bundled.document("cat", "/dev/shm/seen")
    doc["process"]["user"] = {"uid": 1000, "gid": 1000}
    doc["process"]["env"].append("VISIBLE=yes")
    doc["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]}
    doc["hooks"] = {"startContainer": [hook(f"exec > /dev/shm/seen; id -u; echo $VISIBLE; {values}")]}
    assert bundled.run(doc).stdout.split() == ["1000", "yes", "0000000000000000", "1", "2"]


def test_arguments_are_the_path_where_none_are_given(bundled: Box, notes: Path) -> None:
    program = notes / "program"
    program.write_text(f'#!/bin/sh\necho "$# $0" > {notes}/args\n')
    program.chmod(0o755)
    doc = bundled.document("true")
    doc["hooks"] = {"createRuntime": [{"path": str(program)}]}
    bundled.run(doc)
    assert (notes / "args").read_text() == f"0 {program}\n"


def test_standard_input_ends_after_the_state(bundled: Box, notes: Path) -> None:
    doc = bundled.document("true")
    doc["annotations"] = {"long": "x" * 200_000}
    doc["hooks"] = {"createRuntime": [hook(f"/bin/cat > {notes}/state")]}
    bundled.run(doc)
    assert json.loads((notes / "state").read_text())["annotations"]["long"] == "x" * 200_000


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_fails_create_and_the_end_hooks_run(bundled: Box, notes: Path, kind: str) -> None:
    doc = bundled.document("true")
    doc["hooks"] = {
        "prestart": [hook("exit 0")],
        kind: [hook("echo it is broken >&2; exit 3"), hook(f"echo > {notes}/second")],
        "poststop": [hook(f"echo ended >> {notes}/order")],
    }
    with pytest.raises(StepFailed, match=rf"/bin/sh: hooks.{kind}\[0\] ended with status 3: it is broken"):
        bundled.run(doc)
    assert sorted(os.listdir(notes)) == ["order"]
    assert (notes / "order").read_text() == "ended\n"


def test_a_failing_start_hook_fails_start_and_stops_the_container(bundled: Box, notes: Path) -> None:
    doc = bundled.document("sh", "-c", f"echo > {notes}/program")
    doc["hooks"] = {
        "createRuntime": [hook("exit 0")],
        "startContainer": [hook("exit 4")],
        "poststop": [hook(f"echo ended >> {notes}/order")],
    }

    async def main() -> None:
        container = await bundled.create(doc)
        with pytest.raises(StepFailed, match=r"run startContainer hooks: .*hooks.startContainer\[0\] ended with status 4"):
            await container.start()
        assert container.status is Status.STOPPED
        with pytest.raises(WrongState):
            await container.start()
        await container.remove()

    loop.run(main())
    assert (notes / "order").read_text() == "ended\n"
    assert not (notes / "program").exists()


def test_a_failing_hook_after_start_stops_the_container(bundled: Box, notes: Path) -> None:
    doc = bundled.document("sleep", "100")
    doc["hooks"] = {"poststart": [hook("exit 5")], "poststop": [hook(f"echo ended >> {notes}/order")]}

    async def main() -> None:
        container = await bundled.create(doc)
        with pytest.raises(StepFailed, match=r"hooks.poststart\[0\] ended with status 5"):
            await container.start()
        assert (container.status, container.pids()) == (Status.STOPPED, [])
        await container.remove()

    loop.run(main())
    assert (notes / "order").read_text() == "ended\n"


def test_a_failing_hook_of_the_end_is_a_warning(bundled: Box, notes: Path) -> None:
    doc = bundled.document("true")
    doc["hooks"] = {"poststop": [hook("exit 6"), hook(f"echo > {notes}/second")]}

    async def main() -> list[str]:
        container = await bundled.create(doc)
        await container.start()
        await container.init.wait()
        await container.remove()
        return container.warnings

    (warning,) = loop.run(main())
    assert "hooks.poststop[0] ended with status 6" in warning
    assert (notes / "second").exists()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_hook_that_takes_too_long_is_killed_with_its_group(bundled: Box, notes: Path, kind: str) -> None:
    doc = bundled.document("true")
    doc["mounts"].append({"destination": str(notes), "type": "bind", "source": str(notes), "options": ["bind"]})
    doc["hooks"] = {kind: [hook(f"echo $$ > {notes}/pid; /bin/sleep 98765 & /bin/sleep 98765", timeout=1)]}
    with pytest.raises(StepFailed, match=rf"hooks.{kind}\[0\] was not done within 1 s"):
        bundled.run(doc)
    assert (notes / "pid").exists()
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"98765" in arguments(pid)]


def test_a_hook_that_cannot_be_executed(bundled: Box) -> None:
    doc = bundled.document("true")
    for kind in ("createRuntime", "createContainer", "startContainer"):
        doc["hooks"] = {kind: [{"path": "/no/such/hook"}]}
        with pytest.raises(StepFailed, match=rf"/no/such/hook: hooks.{kind}\[0\] ended with status 127: No such file"):
            bundled.run(doc)


def test_what_a_hook_leaves_running_does_not_hold_the_container(bundled: Box, notes: Path) -> None:
    """A daemon that keeps the hook's output open: the container is made, run and removed while it lives."""
    doc = bundled.document("true")
    doc["hooks"] = {"createRuntime": [hook(f"/bin/sleep 3000 & echo $! > {notes}/pid")]}
    assert bundled.run(doc).status == 0
    daemon = int((notes / "pid").read_text())
    os.kill(daemon, signal.SIGKILL)


def test_a_hook_gets_no_descriptor_of_the_agents(bundled: Box, notes: Path) -> None:
    doc = bundled.document("true")
    doc["mounts"].append({"destination": str(notes), "type": "bind", "source": str(notes), "options": ["bind"]})
    kinds = (*OUTSIDE, "startContainer")
    doc["hooks"] = {kind: [hook(f"/bin/ls /proc/self/fd > {notes}/{kind}")] for kind in kinds}
    bundled.run(doc)
    assert {kind: (notes / kind).read_text().split() for kind in kinds} == {kind: ["0", "1", "2", "3"] for kind in kinds}


def test_removing_ends_a_hook_that_hangs(bundled: Box) -> None:
    doc = bundled.document("sleep", "100")
    doc["hooks"] = {"poststart": [hook("/bin/sleep 87654")]}

    async def main() -> None:
        container = await bundled.create(doc)
        starting = loop.spawn(container.start(), name="start")
        with loop.timeout(20):
            while container.status is not Status.RUNNING:
                await loop.sleep(0.01)
        await loop.sleep(0.05)
        await container.remove()
        with pytest.raises(StepFailed, match="removed"):
            await starting.wait()

    loop.run(main())


def test_the_agent_goes_on_while_a_hook_runs(bundled: Box) -> None:
    doc = bundled.document("true")
    doc["hooks"] = {"createRuntime": [hook("/bin/sleep 0.5")]}
    rounds: list[int] = []

    async def count() -> None:
        while True:
            rounds.append(1)
            await loop.sleep(0.01)

    async def main() -> None:
        counting = loop.spawn(count(), name="count")
        container: Container = await bundled.create(doc)
        counting.cancel()
        await container.remove()

    loop.run(main())
    assert len(rounds) > 5
