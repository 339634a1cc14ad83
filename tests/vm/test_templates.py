"""Starting from a template: the same container as from a boot, its own identity, and a boot when anything is wrong."""

import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper import guest
from innkeeper.client import Agent
from innkeeper.engine import host, resolve, template_maker, templates, warm_up
from innkeeper.engine.clones import CLOCK_TOLERANCE_NS
from innkeeper.engine.resolve import RunRequest
from innkeeper.image import Image, RunOptions, to_proto
from innkeeper.image import resolve as resolve_image
from innkeeper.image.run_plan import plan_run
from innkeeper.paths import cache_root, templates_root
from innkeeper.vm import CloneableVm, Disk, registry, template
from innkeeper.wire.pb import agent_pb2
from tests import go_helpers
from tests.eventually import eventually
from tests.images import busybox_image, java_image, python_image
from tests.vm.command import ARGV, environment, innkeeper, inspected, succeed

pytestmark = pytest.mark.vm

CLONE = ("run", "--rm", "--start", "template")
"""Without a template, this makes one first."""
CLONES_AT_ONCE = 8
MAKER_SECONDS = 300.0
"""Seconds that a maker may take: it has the lowest priority."""
CLONES = Path(__file__).parent / "clones"
"""Programs that print random numbers."""


@pytest.fixture(scope="module")
def key() -> Iterator[str]:
    """The key of the template of these tests, which exists."""
    before = set(keys())
    succeed(*CLONE, busybox_image(), "true")
    new = sorted(keys(), key=lambda name: (name in before, -(templates_root() / name / "template.json").stat().st_mtime))
    yield new[0]


def keys() -> list[str]:
    return [folder.name for folder in templates_root().glob("[!.]*/")] if templates_root().exists() else []


def use() -> str:
    """Run a container that says something, whatever becomes of the template. Return what the run said."""
    done = innkeeper("run", "--rm", "--start", "auto", busybox_image(), "echo", "it ran")
    assert (done.returncode, done.stdout) == (0, b"it ran\n"), done.stderr.decode()
    return done.stderr.decode()


def test_inspect_says_how_it_started(key: str) -> None:
    id = succeed("run", "-d", "--start", "template", busybox_image(), "sleep", "1000").strip()
    try:
        record = inspected(id)["machine"]
        assert f"{templates_root() / key}/ram" in record["command"], "what was started"
        assert "-incoming" in record["command"]
        started = record["start"]
        assert (started["from"], started["template"]) == ("template", key)
        assert started["milliseconds"] > 0
    finally:
        innkeeper("rm", "-f", id)


OWN = """
import os, random, secrets, socket, ssl, uuid
received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    ssl.create_default_context().wrap_bio(received, sent, server_hostname="localhost").do_handshake()
except ssl.SSLWantReadError:
    hello = sent.read()
rest = hello[44 + hello[43]:]  # after the record's header of 5 bytes, the message's of 6, and the random and session id
rest = rest[2 + int.from_bytes(rest[:2]):]
rest = rest[1 + rest[0] + 2:]
extensions = {}
while rest:
    size = int.from_bytes(rest[2:4])
    extensions[int.from_bytes(rest[:2])] = rest[4:4 + size]
    rest = rest[4 + size:]
share = extensions[51]
key_share = share[6:6 + int.from_bytes(share[4:6])]
assert len(key_share) >= 32 and hello[5] == 1 and hello[43] == 32
print(os.urandom(16).hex(), secrets.token_hex(16), uuid.uuid4(), random.random(),
      open("/proc/sys/kernel/random/boot_id").read().strip(), open("/proc/sys/kernel/random/uuid").read().strip(),
      open("/sys/class/net/eth0/address").read().strip(), socket.gethostname(), ssl.RAND_bytes(16).hex(),
      hello[11:43].hex(), key_share.hex())
"""
"""Print what each clone must have of its own: random numbers of the kernel and of programs, boot id, hardware address, host name.

The last two are of a TLS handshake (RFC 8446, section 4.1.2): its random, and its key share, the public key of a new private one.
"""


@pytest.mark.parametrize("options", [(), ("-v",)], ids=["private", "shared"])
def test_clones_have_an_identity_of_their_own(key: str, options: tuple[str, ...], tmp_path: Path) -> None:
    share = ("-v", f"{tmp_path}:/data") if options else ()
    assert_all_differ((*CLONE, *share, python_image(), "python3", "-c", OWN))


def test_programs_in_go_have_random_numbers_of_their_own(key: str) -> None:
    program = go_helpers.build("random", CLONES, ".")
    argv = (*CLONE, "-v", f"{program}:/program:ro", busybox_image(), "/program/random")
    assert_all_differ(argv)


@pytest.mark.long
def test_programs_in_java_have_random_numbers_of_their_own(key: str) -> None:
    assert_all_differ((*CLONE, "-v", f"{CLONES}:/program:ro", java_image(), "java", "/program/Random.java"))


def assert_all_differ(argv: Sequence[str]) -> None:
    """Run the command in 8 clones at once. Each prints words, of which no two in one place may be equal."""
    with ThreadPoolExecutor(CLONES_AT_ONCE) as pool:
        answers = [answer.split() for answer in pool.map(lambda _: succeed(*argv), range(CLONES_AT_ONCE))]
    for column in zip(*answers, strict=True):
        assert len(set(column)) == CLONES_AT_ONCE, column


SEQUENCE_NUMBERS = """
import select, socket, struct, time
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
packets.bind(("lo", 0))
server = socket.create_server(("127.0.0.1", 7000))
for _ in range(2):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed without TIME_WAIT
    client.bind(("127.0.0.1", 7001))
    at = time.time_ns()
    client.connect(("127.0.0.1", 7000))
    while True:
        ip = packets.recv(2000)[14:]
        tcp = ip[(ip[0] & 15) * 4:]
        if ip[9] == 6 and tcp[2:4] == (7000).to_bytes(2) and tcp[13] == 2:
            break
    while packets in select.select([packets], [], [], 0.1)[0]:
        packets.recv(2000)
    print((int.from_bytes(tcp[4:8]) - at // 64) % (1 << 32))
    client.close()
"""
"""Print twice the sequence number of a connection's first packet, without its clock of 64 ns (net/core/secure_seq.c)."""


def test_sequence_numbers_of_one_clone_do_not_tell_those_of_another(key: str) -> None:
    """They are a keyed hash of addresses and ports, plus the time. The key must not be the template's."""
    argv = (*CLONE, python_image(), "python3", "-c", SEQUENCE_NUMBERS)
    with ThreadPoolExecutor(CLONES_AT_ONCE) as pool:
        answers = [[int(number) for number in answer.split()] for answer in pool.map(lambda _: succeed(*argv), range(CLONES_AT_ONCE))]

    def near(one: int, other: int) -> bool:
        return min((one - other) % (1 << 32), (other - one) % (1 << 32)) < 200_000_000 // 64

    assert all(near(first, again) for first, again in answers), "one key gives one hash"
    hashes = [first for first, _ in answers]
    alike = [(one, other) for index, one in enumerate(hashes) for other in hashes[:index] if near(one, other)]
    assert len(alike) < 3, "28 pairs would be near each other by one key, by chance hardly one"


CLOCK = "import sys, time\nfor _ in sys.stdin: print(time.time_ns(), flush=True)"
"""Print the time for each line that is read."""
SHORT_NS = 30_000_000
"""The longest round trip in nanoseconds of a reading that counts."""


def test_the_clock_is_right(key: str) -> None:
    """Within 50 ms: the guest reads it at a moment between two readings of ours, which are close to each other."""
    argv = [*ARGV, *CLONE, "-i", python_image(), "python3", "-c", CLOCK]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment(), bufsize=0) as running:
        assert running.stdin is not None and running.stdout is not None

        def read() -> tuple[int, int, int] | None:
            before = time.time_ns()
            running.stdin.write(b"\n")  # type: ignore[union-attr]
            there = int(running.stdout.readline())  # type: ignore[union-attr]
            after = time.time_ns()
            return (before, there, after) if after - before <= SHORT_NS else None

        reading = eventually(read, f"no round trip took less than {SHORT_NS / 1e6:g} ms")
        running.stdin.close()
    assert running.returncode == 0
    assert reading is not None
    before, there, after = reading
    assert before - CLOCK_TOLERANCE_NS <= there <= after + CLOCK_TOLERANCE_NS, f"off by {(there - before) / 1e6:.1f} ms"


SECRET = b"rEaD-FrOm-ThE-vAuLt-2718281"
"""What a container makes of its two halves. In no argument, so that it is in the guest's memory only."""
SENT = {kind: f"sEnT-aS-{kind}-3141592".encode() for kind in ("variable", "input", "file")}
"""What the host sends: it passes through the channel and the agent."""
OTHERS = {kind: b"nOt-A-sEcReT-but-as-long"[: len(secret)] for kind, secret in SENT.items()}
HOLD_SECRETS = """
secret=%s
secret=$secret%s
yes $secret | head -c 8000000 > /dev/shm/secrets
cp /dev/shm/secrets /secrets
held=$(cat /secrets)
read line
echo ${#held}
cat
"""


def test_what_was_freed_before_the_save_is_in_no_template() -> None:
    """Secrets of a container, and of the calls that made it: in its memory, in files, in what was sent and answered."""
    request, key = RunRequest(reference="", vm_memory=512 << 20), os.urandom(16).hex()
    boot_files = guest.boot_files("release", "auto", None)
    programs = host.prepare(boot_files.kernel, accelerator=None, shares=False)
    config = templates.configuration(request, resolve.vm_config(request, RunOptions(), boot_files))
    assert config is not None
    image = resolve_image(busybox_image(), guest.architecture_of(None))
    entry = registry.create()
    try:
        disk = entry.folder / "secrets.erofs"
        shutil.copy(image.erofs, disk)
        os.truncate(disk, warm_up.PLACEHOLDER)
        _, writable = warm_up.disks(entry.folder)
        with CloneableVm(replace(config, disks=(Disk(disk, read_only=True), writable)), programs, entry) as vm:
            template_maker.boot_and_publish(vm, key, lambda agent: hold_twice(agent, image))
        folder = templates_root() / key
        kept = [(name, secret) for name in ("ram", "state") for secret in (SECRET, *SENT.values()) if contains(folder / name, secret)]
        assert kept == []
        assert contains(folder / "ram", b"agent.service.wipe"), "the memory is not there at all"
    finally:
        entry.release()
        template.remove(key)


def hold_twice(agent: Agent, image: Image) -> None:
    """Run such a container twice, the second time with secrets: so the agent has used everything before, as in each template.

    What it loads lasts, and does not fill the memory that it gets.
    """
    hold(agent, image, bytes(reversed(SECRET)), OTHERS)
    hold(agent, image, SECRET, SENT)


def hold(agent: Agent, image: Image, secret: bytes, sent: Mapping[str, bytes]) -> None:
    """Run a container that holds secrets in all places, and remove it."""
    script = HOLD_SECRETS % (secret[:13].decode(), secret[13:].decode())
    options = RunOptions(args=["sh", "-c", script], env=[f"SECRET={sent['variable'].decode() * 4}"], interactive=True)
    run = plan_run(image, options, "secrets")
    for path in run.copied_files.values():
        data = sent["file"] * 1000
        agent.copy_file(agent_pb2.CopyFileRequest(path=path, file_size=len(data), file_mode=0o100644, dir_mode=0o755, data=data))
    agent.create_container(
        agent_pb2.CreateContainerRequest(container_id="secrets", exec_id="secrets", storages=run.storages, OCI=to_proto(run.document))
    )
    agent.start_container("secrets")
    assert agent.write_stdin("secrets", "secrets", sent["input"] + b"\n")
    assert agent.read_stdout("secrets", "secrets", 100) == b"8000000\n"
    for size in (1, 10, 50, 100, 1000, 10_000):
        data = sent["input"] * size
        while data:
            accepted = agent.write_stdin("secrets", "secrets", data)
            data = data[accepted:]
            while accepted:
                accepted -= len(agent.read_stdout("secrets", "secrets", accepted))
    agent.signal_process("secrets", "secrets", signal.SIGKILL)
    agent.wait_process("secrets", "secrets")
    agent.remove_container("secrets")
    for path in run.copied_files.values():
        agent.remove_file(path)


def contains(path: Path, secret: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return content.find(secret) >= 0


def damaged(folder: Path) -> None:
    with (folder / "state").open("r+b") as file:
        file.seek(1000)
        file.write(bytes(10000))


def unnoticed(folder: Path) -> None:
    """Damage that only QEMU can notice: the facts of the files fit."""
    damaged(folder)
    known = (folder / "template.json").read_text()
    facts = json.loads(known)
    found = (folder / "state").stat()
    facts["state"] = [found.st_size, found.st_mtime_ns, found.st_ino]
    (folder / "template.json").write_text(json.dumps(facts))


def half_written(folder: Path) -> None:
    os.truncate(folder / "ram", 1 << 20)


@pytest.mark.parametrize("damage", [damaged, unnoticed, half_written])
def test_a_template_that_cannot_be_used_is_replaced_and_one_line_says_so(damage: Callable[[Path], None], key: str) -> None:
    """Only the template of these tests: others may be in use."""
    succeed(*CLONE, busybox_image(), "true")
    damage(templates_root() / key)
    assert use().count("the guest's template cannot be used, booting instead: ") == 1
    assert "cannot be used" not in use(), "it is said once"
    eventually(lambda: key in keys(), "no template was made anew", MAKER_SECONDS)
    succeed(*CLONE, busybox_image(), "true")


def test_one_that_is_asked_for_is_made_anew_at_once(key: str) -> None:
    succeed(*CLONE, busybox_image(), "true")
    unnoticed(templates_root() / key)
    done = innkeeper(*CLONE, busybox_image(), "echo", "it ran")
    assert (done.returncode, done.stdout) == (0, b"it ran\n"), done.stderr.decode()
    assert b"making another" in done.stderr and b"load of migration failed" in done.stderr
    done = innkeeper(*CLONE, busybox_image(), "echo", "it ran")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with everything but templates, on a disk that a guest's memory does not fit on."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", tmp_path], check=True)
    try:
        for name in ("store", "images", "host-tsc.json", "host-kvm.json"):
            (tmp_path / name).symlink_to(cache_root() / name)
        monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path))
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.root
def test_on_a_full_disk_a_run_boots_and_nothing_stays(full_disk: Path) -> None:
    """A template is tried once there, and not again at each run."""
    assert "cannot be used" not in use()
    eventually(lambda: list(full_disk.glob("templates/.*.failed")), "the maker has noted nothing", MAKER_SECONDS)
    (note,) = full_disk.glob("templates/.*.failed")
    noted = note.stat().st_mtime_ns
    assert "no space is left for the guest's memory" in note.read_text()
    assert "cannot be used" not in use()
    assert note.stat().st_mtime_ns == noted
    done = innkeeper(*CLONE, busybox_image(), "true")
    assert done.returncode == 125 and b"no space is left for the guest's memory" in done.stderr
    eventually(lambda: [path.name for path in full_disk.glob("machines/*")] == [".lock"], "a folder of a VM stays")
    assert keys() == []


@pytest.mark.parametrize(("runs", "at_once"), [(20, 20), pytest.param(200, 1, marks=pytest.mark.long)])
def test_many_runs_leave_nothing(runs: int, at_once: int, key: str) -> None:
    before = (templates_root() / key / "ram").stat().st_mtime_ns
    with ThreadPoolExecutor(at_once) as pool:
        said = list(pool.map(lambda n: succeed(*CLONE, busybox_image(), "echo", str(n)), range(runs)))
    assert said == [f"{n}\n" for n in range(runs)]
    assert (templates_root() / key / "ram").stat().st_mtime_ns == before
    starts = [record.state.get("start") or {} for record in registry.list_vms() if record.alive]
    assert not [start for start in starts if start.get("from") == "template"]


def test_doctor_proves_that_one_works(key: str) -> None:
    document = json.loads(succeed("doctor", "--guest", "--json"))
    assert re.fullmatch(r"a VM starts in \d+\.\d\d s", document["guest"]["from a template"])


def test_a_maker_that_is_killed_leaves_no_half_template(key: str) -> None:
    template.remove(key)
    assert not template.exists(key)
    succeed("run", "--rm", "--start", "auto", busybox_image(), "true")
    eventually(lambda: bool(makers()), "no maker was started")
    for pid in makers():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not makers(), "the maker did not end")
    assert not template.exists(key)
    succeed(*CLONE, busybox_image(), "true")
    assert template.exists(key)


def makers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "innkeeper.engine.template_maker"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]
