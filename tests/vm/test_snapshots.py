"""pause, resume, snapshot and fork: what was saved goes on, each fork by itself, and a failure changes nothing."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from innkeeper.paths import snapshots_root
from innkeeper.vm import registry
from tests.eventually import eventually, retry
from tests.images import busybox_image, redis_image
from tests.vm.command import detached, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm

COUNTER = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.1; done")
"""A program whose progress is seen, in memory and on disk."""
HOOKS = "/etc/innkeeper/hooks"


def count(name: str) -> int:
    """How far the counter of a container is. It may be just writing its file."""
    return int(eventually(lambda: succeed("exec", name, "cat", "/n").strip()))


@pytest.fixture(scope="module")
def counter() -> Iterator[str]:
    with detached(busybox_image(), *COUNTER, options=("--name", "counter")):
        yield "counter"


@pytest.fixture
def tag() -> Iterator[str]:
    yield "test-tag"
    innkeeper("snapshots", "rm", "test-tag")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No half a snapshot stays, whatever a test does."""
    yield
    assert [path.name for path in snapshots_root().glob(".*/")] == []


def state(name: str) -> dict[str, object]:
    found = inspected(name)["State"]
    return {key: found[key] for key in ("Status", "Running", "Paused")}


def test_a_paused_container_stands_still(counter: str) -> None:
    assert succeed("pause", counter) == f"{counter}\n"
    assert state(counter) == {"Status": "paused", "Running": True, "Paused": True}
    assert "(Paused)" in succeed("ps")
    refused = innkeeper("exec", counter, "true")
    assert refused.returncode == 125
    assert f"container {counter} is paused" in refused.stderr.decode()
    assert "already paused" in innkeeper("pause", counter).stderr.decode()
    succeed("unpause", counter)
    assert state(counter) == {"Status": "running", "Running": True, "Paused": False}
    before = count(counter)
    eventually(lambda: count(counter) > before)
    assert "is not paused" in innkeeper("resume", counter).stderr.decode()


@pytest.mark.parametrize("command", [("stop",), ("kill",), ("rm", "-f")])
def test_a_paused_container_ends(command: tuple[str, ...]) -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with detached(busybox_image(), "sh", "-c", script, options=("--name", "ends")):
        eventually(lambda: succeed("logs", "ends") == "ready\n", "a signal before the trap would be ignored")
        succeed("pause", "ends")
        succeed(*command, "ends")
        if command == ("stop",):
            assert inspected("ends")["exit_status"] == 7
        if command[0] != "rm":
            eventually(lambda: inspected("ends")["State"]["Status"] == "exited")


@pytest.mark.parametrize("start", ["cold", "template"])
def test_a_fork_goes_on_where_the_snapshot_was(start: str, tag: str) -> None:
    """Also after the container is gone, and a fork is forked in turn."""
    with detached(busybox_image(), *COUNTER, options=("--name", "origin", "--start", start)):
        eventually(lambda: count("origin") >= 5)
        assert succeed("snapshot", "origin", tag) == f"{tag}\n"
        reached = count("origin")
        eventually(lambda: count("origin") > reached, "the container does not go on")
        assert "exists" in innkeeper("snapshot", "origin", tag).stderr.decode()
    listed = json.loads(succeed("snapshots", "ls", "--json"))
    assert [(one["tag"], one["container"]) for one in listed if one["tag"] == tag] == [(tag, "origin")]
    assert tag in succeed("snapshots")
    folder = snapshots_root() / tag
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    ids = succeed("fork", tag, "-n", "2", "--name", "forked").split()
    try:
        for name in ("forked-1", "forked-2"):
            at = count(name)
            assert at >= 5
            eventually(lambda name=name, at=at: count(name) > at)  # type: ignore[misc]
        own = [succeed("exec", id, "cat", "/proc/sys/kernel/random/uuid", "/sys/class/net/eth0/address").split() for id in ids]
        for first, second in zip(*own, strict=True):
            assert first != second
        succeed("exec", ids[0], "touch", "/only-here")
        assert innkeeper("exec", ids[1], "test", "-e", "/only-here").returncode == 1
        again = succeed("fork", ids[0], "--rm").strip()
        ids.append(again)
        succeed("exec", again, "test", "-e", "/only-here")
        assert inspected(again)["forked_from"] == "forked-1"
    finally:
        innkeeper("rm", "-f", *ids)


def ask(port: int, *words: str) -> str:
    """Return the answer of a redis to a command, one line. Raise ConnectionError where nothing listens yet.

    The host's end of a published port accepts before the guest's does, as docker's proxy: such a connection ends without a word.
    """
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.settimeout(300)
        sock.sendall(" ".join(words).encode() + b"\r\n")
        line = sock.makefile("rb").readline()
    if not line.endswith(b"\n"):
        raise ConnectionError(f"port {port}: the connection ended after {line!r}")
    return line.decode().strip()


def test_five_forks_of_a_redis(request: pytest.FixtureRequest) -> None:
    """Each has all the keys, and its own from then on."""
    keys = 1_000_000 if request.config.getoption("--long", default=False) else 100_000
    with detached(redis_image(), options=("--name", "redis", "-p", "6379")):
        port = int(inspected("redis")["ports"][0].rpartition("->")[0].rpartition(":")[2])
        assert retry(lambda: ask(port, "PING"), OSError) == "+PONG"
        assert ask(port, "EVAL", f"\"for i=1,{keys} do redis.call('set','key:'..i,i) end\"", "0") == "$-1"
        assert ask(port, "DBSIZE") == f":{keys}"
        ids = succeed("fork", "redis", "-n", "5", "--rm", "-p", "6379").split()
        try:
            assert len(ids) == 5
            ports = [int(inspected(id)["ports"][0].rpartition("->")[0].rpartition(":")[2]) for id in ids]
            for index, one in enumerate(ports):
                assert retry(lambda one=one: ask(one, "DBSIZE"), OSError) == f":{keys}"  # type: ignore[misc]
                assert ask(one, "SET", "own", str(index)) == "+OK"
            for one in (*ports, port):
                assert ask(one, "DBSIZE") == f":{keys + (one != port)}"
        finally:
            innkeeper("rm", "-f", *ids)


@pytest.fixture
def hooked() -> Iterator[str]:
    """A container with all hooks. Each writes its name to /told, hangs if there is /hang, and fails if there is /refuse-NAME."""
    names = ("before-snapshot", "after-snapshot", "after-fork")
    body = "#!/bin/sh\\necho {0} >> /told; test ! -e /hang || sleep 1000; echo {0} was asked; test ! -e /refuse-{0}\\n"
    script = "\n".join(
        [
            f"mkdir -p {HOOKS}",
            *(f"printf '{body.format(name)}' > {HOOKS}/{name}" for name in names),
            f"chmod +x {HOOKS}/*",
            "echo ready > /told",
            "while :; do sleep 1; done",
        ]
    )
    with detached(busybox_image(), "sh", "-c", script, options=("--name", "hooked")):
        eventually(lambda: innkeeper("exec", "hooked", "test", "-e", "/told").returncode == 0)
        yield "hooked"


def test_hooks_are_told_in_order(hooked: str, tag: str) -> None:
    succeed("snapshot", hooked, tag)
    assert succeed("exec", hooked, "cat", "/told").split() == ["ready", "before-snapshot", "after-snapshot"]
    forked = succeed("fork", tag).strip()
    try:
        assert succeed("exec", forked, "cat", "/told").split() == ["ready", "before-snapshot", "after-fork"]
    finally:
        innkeeper("rm", "-f", forked)


def test_a_hook_that_fails_before_refuses_the_snapshot(hooked: str, tag: str) -> None:
    succeed("exec", hooked, "touch", "/refuse-before-snapshot")
    for command in (("snapshot", hooked, tag), ("fork", hooked)):
        refused = innkeeper(*command)
        assert refused.returncode == 125
        assert f"hook {HOOKS}/before-snapshot: it ended with status 1: before-snapshot was asked" in refused.stderr.decode()
    assert not (snapshots_root() / tag).exists()
    assert state(hooked)["Paused"] is False


def test_a_hook_that_fails_after_the_snapshot_is_a_warning(hooked: str, tag: str) -> None:
    succeed("exec", hooked, "touch", "/refuse-after-snapshot")
    done = innkeeper("snapshot", hooked, tag)
    assert (done.returncode, done.stdout.decode()) == (0, f"{tag}\n")
    assert f"the snapshot is made, but hook {HOOKS}/after-snapshot: it ended with status 1" in done.stderr.decode()
    assert state(hooked)["Paused"] is False


def test_a_hook_that_fails_in_a_fork_ends_it(hooked: str) -> None:
    """And the container that it is a fork of runs on."""
    succeed("exec", hooked, "touch", "/refuse-after-fork")
    refused = innkeeper("fork", hooked, "--rm")
    assert (refused.returncode, refused.stdout) == (125, b"")
    assert f"hook {HOOKS}/after-fork: it ended with status 1: after-fork was asked" in refused.stderr.decode()
    assert [one for one in registry.list_vms() if one.state.get("container", {}).get("forked_from") == hooked] == []
    assert succeed("exec", hooked, "cat", "/told").split() == ["ready", "before-snapshot", "after-snapshot"]


def test_a_hook_has_ten_seconds(hooked: str, tag: str) -> None:
    succeed("exec", hooked, "touch", "/hang")
    before = time.monotonic()
    refused = innkeeper("snapshot", hooked, tag)
    assert time.monotonic() - before >= 10
    assert refused.returncode == 125
    assert f"hook {HOOKS}/before-snapshot: it did not end within 10 s" in refused.stderr.decode()
    succeed("exec", hooked, "rm", "/hang")
    succeed("snapshot", hooked, tag)
    running = [line.split()[-1] for line in succeed("exec", hooked, "ps").splitlines()]
    assert f"{HOOKS}/before-snapshot" not in running, "it was killed"


def test_what_cannot_be_saved_is_refused(counter: str, tmp_path: Path) -> None:
    with detached(busybox_image(), "sleep", "1000", options=("--name", "shares", "-v", f"{tmp_path}:/data")):
        refused = innkeeper("snapshot", "shares", "never")
        assert refused.returncode == 125
        assert "-v cannot be saved" in refused.stderr.decode()
        succeed("exec", "shares", "true")
    assert "invalid tag" in innkeeper("snapshot", counter, "../x").stderr.decode()
    assert "no such container" in innkeeper("snapshot", "nobody", "x").stderr.decode()
    assert "no such container" in innkeeper("fork", "nobody").stderr.decode()
    assert "no such snapshot" in innkeeper("snapshots", "rm", "nobody").stderr.decode()
    assert "cannot all have port 80" in innkeeper("fork", counter, "-n", "2", "-p", "80:80").stderr.decode()


def test_a_full_disk_leaves_the_container_running(counter: str) -> None:
    folder = snapshots_root()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", folder], check=True)
    try:
        failed = innkeeper("snapshot", counter, "full")
        assert failed.returncode == 125
        assert "could not be saved" in failed.stderr.decode()
        assert list(folder.glob("[!.]*")) == [] == list(folder.glob(".*/"))
    finally:
        subprocess.run(["umount", folder], check=True)
    at = count(counter)
    eventually(lambda: count(counter) > at)
    assert state(counter)["Paused"] is False


def test_a_snapshot_of_something_else_is_refused(counter: str, tag: str) -> None:
    succeed("snapshot", counter, tag)
    path = snapshots_root() / tag / "snapshot.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "key": "0" * 32}))
    refused = innkeeper("fork", tag)
    assert refused.returncode == 125
    assert "of another QEMU, kernel or root" in refused.stderr.decode()
    path.write_text(json.dumps(document))
    with (snapshots_root() / tag / "state").open("r+b") as file:
        file.truncate(1 << 20)
    assert "could not be loaded" in innkeeper("fork", tag, "--rm").stderr.decode()
    assert [one for one in registry.list_vms() if one.state.get("container", {}).get("forked_from") == counter and one.alive] == []
    for one in registry.list_vms():
        if not one.alive and one.state.get("container", {}).get("forked_from") == counter:
            registry.remove(one)


def test_snapshots_at_once_and_an_owner_that_is_killed(tag: str) -> None:
    """One is served after the other. The end of the owner ends its snapshot."""
    with detached(busybox_image(), *COUNTER, options=("--name", "many")):
        with ThreadPoolExecutor(3) as pool:
            made = list(pool.map(lambda n: innkeeper("snapshot", "many", f"{tag}-{n}"), range(3)))
        assert [done.returncode for done in made] == [0, 0, 0]
        succeed("snapshots", "rm", *(f"{tag}-{n}" for n in range(3)))
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(innkeeper, "snapshot", "many", tag)
            succeed("rm", "-f", "many")
            late.result()
    assert not list(snapshots_root().glob(f"{tag}-*"))
