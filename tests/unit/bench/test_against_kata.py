"""Our guest beside Kata's: what the harness of the shim writes down is read, what is missing beside DIR is named, figures become rows."""

from pathlib import Path

import pytest

from bench import against_kata, command
from bench.against_kata import OURS, THEIRS, Anchor, Round
from bench.guest import boot_stages
from bench.recording import CHECK, CREATE_SANDBOX, first_answer, resident_bytes, starts
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Artifacts
from innkeeper.wire.pb import guest_pb2

LOG = """\
1795829694.679 10595 -name sandbox-run-1 -machine q35,accel=tcg -qmp unix:fd=3,server=on,wait=off -chardev socket,id=charconsole0,\
path=/run/vc/vm/run-1/console.sock,server=on,wait=off -chardev socket,id=vsockdev,path=/run/inb-a_1/vsock/2220728870.sock -device \
vhost-user-vsock-pci,chardev=vsockdev,id=vsock-2220728870 -chardev socket,id=char-f3,path=/run/vc/vm/run-1/vhost-fs.sock -smp 1
1795829699.725 11433 -version
1795829703.873 12396 -name sandbox-run-2 -chardev socket,id=vsockdev,path=/run/inb-a_1/vsock/2176581577.sock -device x
"""
RECORDING = """\
{"unix_time": 1795829710.4584622, "cid": 2176581577, "port": 1024}
{"t": 0.006137, "is": "request", "stream": 1, "call": "grpc.Health/Check", "type": 1, "flags": 0, "len": 29, "payload": \
"CgtncnBjLkhlYWx0aBIFQ2hlY2s="}
{"t": 0.018654, "is": "response", "stream": 1, "call": "grpc.Health/Check", "type": 2, "flags": 0, "len": 6, "payload": "CgASAggB"}
{"t": 0.022408, "is": "request", "stream": 3, "call": "grpc.AgentService/CreateSandbox", "type": 1, "flags": 0, "len": 0, "pay"""
"""Its last line is being written."""
METRICS = """\
# HELP kata_agent_proc_status Agent process status.
# TYPE kata_agent_proc_status gauge
kata_agent_proc_status{item="vmhwm"} 13112
kata_agent_proc_status{item="vmrss"} 13096
kata_agent_total_rss 13410304
"""


def test_the_start_of_each_machine() -> None:
    assert starts(LOG) == {2220728870: (1795829694.679, 10595), 2176581577: (1795829703.873, 12396)}
    assert starts("") == {}


def test_the_first_answered_check() -> None:
    cid, moment = first_answer(RECORDING.splitlines(), CHECK) or (0, 0.0)
    assert cid == 2176581577
    assert moment == pytest.approx(1795829710.477116, abs=1e-5)


def test_a_check_that_was_refused_or_not_answered_does_not_count() -> None:
    begin, request, response, _ = RECORDING.splitlines()
    refused = response.replace("CgASAggB", "CgQIDhIA")  # UNAVAILABLE
    assert first_answer([begin, request], CHECK) is None
    assert first_answer([begin, request, refused], CHECK) is None
    assert first_answer([begin, request, response.replace("Check", "Version")], CHECK) is None
    assert first_answer([], CHECK) is None
    assert first_answer([begin, request, response], CREATE_SANDBOX) is None


@pytest.mark.parametrize("text", ["no JSON", '{"port": 1024}', "[]", '{"cid": 1, "unix_time": 2.0}\n{"is": "response"}'])
def test_what_is_no_recording(text: str) -> None:
    with pytest.raises(InnkeeperError, match="cannot be read"):
        first_answer(text.splitlines(), CHECK)


def test_resident_memory_out_of_metrics() -> None:
    assert resident_bytes(METRICS) == 13096 * 1024
    with pytest.raises(InnkeeperError, match="vmrss"):
        resident_bytes("kata_agent_total_rss 13410304\n")


def test_the_guests_clock_is_laid_on_the_hosts() -> None:
    names = {"pid1": 1_000_000_000, "listening": 1_100_000_000, "first check answered": 1_250_000_000}
    stages = [guest_pb2.BootTimelineResponse.Stage(name=name, boottime_ns=when) for name, when in names.items()]
    placed = boot_stages(guest_pb2.BootTimelineResponse(stages=stages), 1.75)
    assert placed == pytest.approx({"kernel begins": 0.5, "PID 1 starts": 1.5, "PID 1 listens": 1.6, "first Check answered": 1.75})


def disk(path: Path, offset: int, magic: bytes) -> None:
    """A disk image whose only partition begins at sector 8 and has `magic` at `offset`."""
    with path.open("wb") as file:
        file.write(bytes(454) + (8).to_bytes(4, "little") + bytes(52) + bytes.fromhex("55aa"))
        file.seek(8 * 512 + offset)
        file.write(magic)


def anchor(folder: Path) -> Path:
    """A folder as `--against` wants it."""
    place = folder / "anchor"
    place.mkdir()
    (place / "bzImage").write_bytes(bytes(8_000_000))
    disk(place / "image", 1080, b"\x53\xef")
    return place


@pytest.mark.parametrize(("offset", "magic", "name"), [(1080, b"\x53\xef", "ext4"), (1024, b"\xe2\xe1\xf5\xe0", "erofs")])
def test_the_root_of_the_image_is_looked_at(tmp_path: Path, offset: int, magic: bytes, name: str) -> None:
    place = anchor(tmp_path)
    disk(place / "image", offset, magic)
    assert Anchor.of(place) == Anchor(place / "bzImage", place / "image", name)


@pytest.mark.parametrize(("data", "why"), [(b"", "has no partition table"), (bytes(510) + b"\x55\xaa", "neither ext4 nor erofs")])
def test_an_image_without_a_root_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    place = anchor(tmp_path)
    (place / "image").write_bytes(data)
    with pytest.raises(InnkeeperError, match=why):
        Anchor.of(place)


@pytest.mark.parametrize("name", ["bzImage", "image"])
def test_what_is_missing_is_named(tmp_path: Path, name: str) -> None:
    place = anchor(tmp_path)
    (place / name).unlink()
    with pytest.raises(InnkeeperError, match=f"{name} is missing") as raised:
        Anchor.of(place)
    assert raised.value.hint == against_kata.HINT


def test_rows_in_pairs_and_their_budgets() -> None:
    done = {
        OURS: [
            Round(2.0, [1.5, 1.9], [2.9, 3.1], [0.1, 0.2, 0.3], 17_000_000),
            Round(2.2, [1.6, 1.7], [3.0, 3.0], [0.1, 0.2, 0.3], 19_000_000),
        ],
        THEIRS: [Round(2.5, [1.8, 1.8], [1.9, 1.9], [0.1, 0.1, 0.1], 13_000_000) for _ in range(2)],
    }
    rows = against_kata._comparison(done).figures
    assert [row.name.rpartition(": ")[2] for row in rows] == [OURS, THEIRS] * 5
    check, their_check, sandbox, _, run, _, exec_, _, resident, _ = rows
    assert [check.median, sandbox.median, run.median, exec_.median, resident.median] == pytest.approx([1.65, 3.0, 2.1, 200, 18])
    assert [row.met for row in (check, sandbox, run, exec_, resident)] == [True, None, None, False, True]
    assert (check.best, check.samples, exec_.unit) == (1.5, 4, "ms")
    assert (their_check.median, their_check.budget, their_check.met) == (1.8, "", None)


def test_holes_of_images_do_not_count(tmp_path: Path) -> None:
    found = Anchor.of(anchor(tmp_path))
    paths = {name: tmp_path / name for name in ("kernel", "disk", "root")}
    for path in paths.values():
        path.write_bytes(b"x" * 40_960)
        with path.open("ab") as file:
            file.truncate(1 << 30 if path.name == "disk" else 50_000)
    kernel, root, disk = paths["kernel"], paths["root"], paths["disk"]
    built = Artifacts(vmlinux=kernel, bzImage=kernel, config=kernel, rootfs=root, disk=disk, initrd=root, verity=kernel, manifest=kernel)
    rows = {row.name: row for row in against_kata.sizes(built, found).figures}
    assert rows["root, compressed: ours"].median == 0.05
    assert rows["kernel (bzImage): Kata's"].median == 8.0
    ours, theirs = (rows[f"disk image, room taken: {whose}"] for whose in (OURS, THEIRS))
    assert 0.04 <= ours.median < 0.051
    assert theirs.median < ours.median
    assert (ours.met, theirs.met) == (False, None)
    found.image.write_bytes(found.image.read_bytes()[:-2] + b"x" * 100_000)
    assert next(row for row in against_kata.sizes(built, found).figures if row.budget).met is True


def test_only_against_needs_a_folder() -> None:
    with pytest.raises(InnkeeperError, match="--against DIR"):
        command.bench(only="against")
