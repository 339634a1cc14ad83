"""The registry of machines, sockets with long paths, console texts, and what is remembered about KVM."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from innkeeper import programs
from innkeeper.dial import connect_unix, listen_unix, short_path
from innkeeper.errors import InnkeeperError
from innkeeper.vm import HostPrograms, accel, bootfacts, child_processes, console, registry
from innkeeper.vm.readiness import check_health


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def find(reference: str) -> registry.Record:
    """Return the VM with this name or id."""
    (found,) = (record for record in registry.list_vms() if reference in (record.name, record.id))
    return found


def test_machines_are_listed_with_their_state() -> None:
    entry = registry.create("web")
    other = registry.create()
    entry.update(address="hybrid:///x:PORT", image="debian")
    for reference in ("web", entry.id):
        found = find(reference)
        assert (found.id, found.name, found.alive) == (entry.id, "web", True)
        assert found.address(1024) == "hybrid:///x:1024"
        assert found.state["image"] == "debian"
    assert find(other.id).name == other.id
    assert [r.id for r in registry.list_vms()] == [entry.id, other.id]
    for one in (entry, other):
        one.release()
    assert registry.list_vms() == []


def test_errors_name_the_machine() -> None:
    entry = registry.create("web")
    with pytest.raises(InnkeeperError, match="name web is already in use by VM"):
        registry.create("web")
    with pytest.raises(InnkeeperError, match="invalid container name"):
        registry.create("../web")
    with pytest.raises(InnkeeperError, match="web is still running"):
        registry.remove(find("web"))
    entry.release()


def test_what_is_kept_is_logs_and_state() -> None:
    entry = registry.create("web")
    entry.update(keep=True, status="ended", exit_status=3)
    for name in ("console.log", "agent.sock", "scratch.img", "share-0"):
        (entry.folder / name).write_text("x")
    entry.release()
    record = find("web")
    assert not record.alive
    assert sorted(p.name for p in record.folder.iterdir()) == ["console.log", "lock", "state.json"]
    with pytest.raises(InnkeeperError, match="web is not running"):
        record.address(1024)
    assert registry.sweep() == 0
    registry.remove(find("web"))
    assert registry.list_vms() == []


OWNER = """
import os, sys
from innkeeper.vm import registry
entry = registry.create(sys.argv[1])
entry.update(keep=sys.argv[2] == "keep", status="running")
(entry.folder / "scratch.img").write_text("x")
(entry.folder / "console.log").write_text("last words")
print(entry.id, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("keep", ["keep", "drop"])
def test_a_killed_owner_is_swept_away(keep: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, "web", keep], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    owner.stdout.readline()
    assert registry.sweep() == 0, "its owner lives"
    assert find("web").alive
    owner.kill()
    owner.communicate()
    assert not find("web").alive
    assert registry.sweep() == 1
    left = {r.name: r.state["status"] for r in registry.list_vms()}
    assert left == ({"web": "ended"} if keep == "keep" else {})
    if keep == "keep":
        assert not (find("web").folder / "scratch.img").exists()
        assert find("web").console.read_text() == "last words"


def test_a_reader_never_sees_half_a_state() -> None:
    entry = registry.create("web")
    stop = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(find("web").state["status"])

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(50):
        entry.update(status=f"s{i}", filler="x" * 5000)
    stop.set()
    reader.join()
    assert seen and all(s == "created" or s[0] == "s" for s in seen)
    entry.release()


HOLDER = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(lock, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_machine_that_is_looked_at_can_be_removed_and_swept() -> None:
    """What `ps` does for a moment lasts here: it holds the lock shared while the machine is changed and removed."""
    entry = registry.create("web")
    entry.update(keep=True, status="running")
    entry.release()
    record = find("web")
    reader = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(record.folder / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout is not None and reader.stdout.readline() == "held\n"
        assert registry.sweep() == 1, "it did not end in order"
        registry.remove(find("web"))
        assert registry.list_vms() == []
    finally:
        reader.communicate()


def test_a_machine_that_is_changed_does_not_look_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.create("web")
    entry.update(keep=True, status="ended")
    entry.release()
    seen: list[bool] = []
    monkeypatch.setattr(child_processes, "kill_orphans", lambda folder: seen.append(find("web").alive))
    registry.remove(find("web"))
    assert seen == [False]


def test_machines_are_made_and_removed_while_others_look(cache: Path) -> None:
    """Readers as fast as they can: no moment of a machine's making or removal is one that they disturb."""
    script = "import sys\nfrom innkeeper.vm import registry\nprint('on', flush=True)\nwhile True: list(registry.list_vms())"
    readers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for reader in readers:
            assert reader.stdout is not None and reader.stdout.readline() == b"on\n"
        for number in range(100):
            entry = registry.create(f"m{number}")
            entry.update(keep=True, status="ended")
            entry.release()
            registry.remove(find(f"m{number}"))
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    assert [path.name for path in (cache / "machines").iterdir()] == [".lock"]


def test_what_a_killed_creation_or_removal_leaves_is_swept(cache: Path) -> None:
    registry.create("web").release()
    for name in (".0123456789ab", "ba9876543210"):
        (cache / "machines" / name).mkdir()
    registry.sweep()
    assert [path.name for path in (cache / "machines").iterdir()] == [".lock"]


def test_two_processes_cannot_take_one_name() -> None:
    script = "import sys\nfrom innkeeper.vm import registry\nregistry.create('web')\nprint('got it', flush=True)\nsys.stdin.read()"
    racers = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    try:
        outcomes = []
        for racer in racers:
            assert racer.stdout is not None
            outcomes.append(racer.stdout.readline())
        assert sorted(outcomes) == [b"", b"", b"got it\n"]
    finally:
        for racer in racers:
            racer.communicate()
    registry.sweep()


def test_sockets_below_deep_folders(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    with listen_unix(deep / "s.sock") as server, connect_unix(str(deep / "s.sock"), 5) as client:
        client.sendall(b"hello")
        with server.accept()[0] as accepted:
            assert accepted.recv(5) == b"hello"
    with short_path("/short") as name:
        assert name == "/short"


def test_the_console_is_told_in_plain_lines(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert console.tail(log, 5) == []
    log.write_bytes(b"\x1b[0mfirst\r\n\r\n\x07second\xff\n[    1.2] Kernel panic - not syncing: VFS: no root\n last")
    assert console.tail(log, 2) == ["[    1.2] Kernel panic - not syncing: VFS: no root", " last"]
    assert console.tail(log, 9)[:2] == ["first", "second\ufffd"]
    assert console.panic(log) == "VFS: no root"
    assert not console.ran_out_of_memory(log)


def test_a_verdict_on_kvm_is_remembered_until_the_next_boot(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []

    host = HostPrograms(qemu=Path("/qemu"), setpriv=Path("/setpriv"))

    def prove(kernel: Path, host: HostPrograms) -> accel.Verdict:
        asked.append(kernel)
        return accel.Verdict(False, "a guest hung under it")

    monkeypatch.setattr(accel, "prove", prove)
    monkeypatch.setattr(accel, "DEVICE", tmp_path)
    boot = tmp_path / "boot_id"
    boot.write_text("first\n")
    monkeypatch.setattr(bootfacts, "BOOT_ID", boot)
    assert accel.kvm(None, host).why.startswith("not proven yet")
    assert [accel.choose(None, Path("/k"), host) for _ in range(3)] == ["tcg"] * 3
    assert asked == [Path("/k")]
    assert accel.kvm(None, None).why == "a guest hung under it"
    boot.write_text("second\n")
    accel.choose(None, Path("/k"), host)
    assert len(asked) == 2
    (cache / "host-kvm.json").write_text("[]")
    accel.choose(None, Path("/k"), host)
    assert len(asked) == 3
    assert accel.choose("kvm", Path("/k"), host) == "kvm"


def answer(body: bytes, stream: int = 1, kind: int = 2) -> bytes:
    return struct.pack(">IIBB", len(body), stream, kind, 0) + body


@pytest.mark.parametrize(
    ("reply", "good"),
    [
        (answer(b"\x12\x02\x08\x01"), True),
        (answer(b""), True),
        (answer(b"\x0a\x02\x08\x00\x12\x02\x08\x01"), True),
        (answer(b"\x0a\x04\x08\x0c\x12\x00"), False),
        (answer(b"", stream=3), False),
        (answer(b"", kind=3), False),
        (b"\0\0", False),
    ],
)
def test_health_check_by_hand(reply: bytes, good: bool) -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(reply)
        theirs.shutdown(socket.SHUT_WR)
        if good:
            check_health(ours)
        else:
            with pytest.raises(OSError):
                check_health(ours)
        request = theirs.recv(4096)
    assert request[:10] == struct.pack(">IIBB", 20, 1, 1, 0)
    assert request[10:] == b"\n\x0bgrpc.Health\x12\x05Check"


def test_a_process_ends_with_its_owner_also_when_a_thread_started_it(tmp_path: Path) -> None:
    script = f"""
import threading, sys, time
from pathlib import Path
from innkeeper import programs
from innkeeper.vm import child_processes
def start():
    folder, log = Path({str(tmp_path)!r}), Path({str(tmp_path / "log")!r})
    p = child_processes.spawn(programs.require("setpriv"), ["sleep", "100"], folder=folder, log=log)
    print(p.pid, flush=True)
t = threading.Thread(target=start); t.start(); t.join()
sys.stdin.read()
"""
    owner = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    child = os.pidfd_open(pid)
    try:
        import select

        assert not select.select([child], [], [], 0.2)[0], "it outlives the thread that asked for it"
        owner.kill()
        owner.communicate()
        assert select.select([child], [], [], 10)[0]
    finally:
        os.close(child)


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    entry = registry.create("web")
    process = child_processes.spawn(programs.require("setpriv"), ["sleep", "100"], folder=entry.folder, log=tmp_path / "log")
    try:
        held = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
        assert not [path for path in held if path.endswith("/lock")]
        assert process.pid in child_processes.orphans(entry.folder)
    finally:
        child_processes.end(process)
    assert child_processes.orphans(entry.folder) == []
    entry.release()


def test_state_is_json_with_a_version() -> None:
    entry = registry.create()
    state = json.loads((entry.folder / "state.json").read_text())
    assert state["version"] == 1 and state["owner"] == os.getpid()
    fd = os.open(entry.folder / "lock", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    entry.release()
