"""The store of templates: whole or not used, one maker, the least recently used go first."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper import files
from innkeeper.errors import InnkeeperError
from innkeeper.vm import CloneableVm, HostPrograms, RestoredVm, qemu, registry, saved_state, template, virtio_serial
from innkeeper.vm.config import Disk, Forward, Tap, VmConfig
from innkeeper.vm.virtio_serial import VirtioSerial


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(template, "templates_root", lambda: tmp_path / "templates")
    (tmp_path / "templates").mkdir()
    return tmp_path / "templates"


def publish(root: Path, key: str, size: int = 4096, kernel: Path = Path("/opt/vmlinux")) -> None:
    ram, state = root / "ram", root / "state"
    ram.write_bytes(bytes([1]) * size)
    state.write_bytes(b"state")
    template.publish(key, ram, state, kernel)


@pytest.fixture
def launch(tmp_path: Path) -> qemu.Launch:
    names = ("kernel", "root", "image", "scratch", "other")
    for name in names:
        (tmp_path / name).write_text(name)
    disks = (Disk(tmp_path / "image", read_only=True), Disk(tmp_path / "scratch", volatile=True))
    config = VmConfig(kernel=tmp_path / "kernel", root=tmp_path / "root", cloneable=True, gives_memory_back=False, disks=disks)
    program = str(tmp_path / "other")
    return qemu.Launch(config=config, program=program, name="a", machine_type="q35", accel="tcg", cmdline="a b", generation="g")


def test_what_a_clone_may_have_of_its_own_is_not_in_the_key(launch: qemu.Launch, tmp_path: Path) -> None:
    config = launch.config
    other = replace(
        config,
        disks=(Disk(tmp_path / "other", read_only=True), Disk(tmp_path / "other", volatile=True)),
        forwards=(Forward("tcp", "", 1, 1),),
    )
    clone = replace(launch, config=other, name="b", generation="h", ram="x", incoming=True, qmp_fd=9, forwards=other.forwards)
    assert template.key_of(clone) == template.key_of(launch)
    without = replace(launch, config=replace(config, network=False))
    tap = replace(launch, config=replace(config, network=(Tap(9, "02:00:00:00:00:01", tmp_path),)))
    assert template.key_of(tap) == template.key_of(without)


def test_the_generation_id_differs_between_two_launches(launch: qemu.Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By it the kernel of a clone learns that it is one (vmgenid), and reseeds its random numbers."""
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    entry = registry.outside("id", tmp_path)
    host = HostPrograms(qemu=Path(launch.program), setpriv=Path("/setpriv"))
    vm = CloneableVm(replace(launch.config, accel="tcg"), host, entry)
    restored = RestoredVm(replace(launch.config, accel="tcg"), host, entry, Path("/state"))
    key = vm.template_key()
    words = [qemu.arguments(one._launch(VirtioSerial, ())) for one in (vm, vm, restored, restored)]
    found = [word.removeprefix("vmgenid,guid=") for line in words for word in line if word.startswith("vmgenid,")]
    assert len(set(found)) == 4
    assert all(str(uuid.UUID(one)) == one and uuid.UUID(one).version == 4 for one in found)
    assert vm.template_key() == key


def test_a_clone_has_no_vsock_address(launch: qemu.Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the host has vsock: two clones would have the same one."""
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(virtio_serial, "open_backend", lambda *_: pytest.fail("a clone has no choice of channels"))
    config = replace(launch.config, accel="tcg")
    vm = CloneableVm(config, HostPrograms(qemu=Path(launch.program), setpriv=Path("/setpriv")), registry.outside("id", tmp_path))
    vm.template_key()
    channel = vm._open_channel()
    try:
        assert isinstance(channel, VirtioSerial)
        words = qemu.arguments(vm._launch(channel, ()))
    finally:
        channel.close()
    assert [word for word in words if word.startswith("virtio-serial-")]
    assert not [word for word in words if word.startswith("vhost-") or "guest-cid" in word]


@pytest.mark.parametrize(
    "changed",
    [{"cpus": 2}, {"memory_mib": 1024}, {"network": False}, {"disks": ()}],
    ids=lambda changed: next(iter(changed)),
)
def test_what_must_be_equal_is_in_the_key(launch: qemu.Launch, changed: dict[str, object]) -> None:
    other = replace(launch, config=replace(launch.config, **changed))  # type: ignore[arg-type]
    assert template.key_of(other) != template.key_of(launch)


def test_the_programs_and_files_are_in_the_key(launch: qemu.Launch, tmp_path: Path) -> None:
    before = template.key_of(launch)
    assert template.key_of(replace(launch, cmdline="a c")) != before
    assert template.key_of(replace(launch, accel="kvm")) != before
    for name in ("kernel", "root", "other"):
        (tmp_path / name).write_text(f"another {name}")
        after = template.key_of(launch)
        assert after != before
        before = after


def test_a_published_template_is_found_and_marked_as_used(root: Path) -> None:
    publish(root, "key")
    os.utime(root / "key" / "template.json", (1, 1))
    with template.found("key") as found:
        assert found is not None
        assert found.state.read_bytes() == b"state"
        assert not template.remove("key")  # in use
    assert (root / "key" / "template.json").stat().st_mtime > 1
    assert template.remove("key")
    with template.found("key") as found:
        assert found is None


def damage_state(folder: Path) -> None:
    (folder / "state").write_bytes(b"STATE")


def truncate_ram(folder: Path) -> None:
    os.truncate(folder / "ram", 100)


def remove_ram(folder: Path) -> None:
    (folder / "ram").unlink()


def empty_facts(folder: Path) -> None:
    (folder / "template.json").write_text("")


def remove_facts(folder: Path) -> None:
    (folder / "template.json").unlink()


def remove_lock(folder: Path) -> None:
    (folder / "lock").unlink()


@pytest.mark.parametrize("damage", [damage_state, truncate_ram, remove_ram, empty_facts, remove_facts, remove_lock])
def test_a_template_that_is_not_whole_is_said_to_be_damaged_once_and_goes(root: Path, damage: Callable[[Path], None]) -> None:
    publish(root, "key")
    damage(root / "key")
    with pytest.raises(InnkeeperError, match="the template is damaged"), template.found("key"):
        raise AssertionError("not reached")
    assert list(root.iterdir()) == []
    with template.found("key") as found:
        assert found is None
    publish(root, "key")
    with template.found("key") as found:
        assert found is not None


def test_a_copy_of_the_folder_is_not_a_template(root: Path) -> None:
    """Its files are not those that were written and synced."""
    publish(root, "key")
    subprocess.run(["cp", "-a", root / "key", root / "copy"], check=True)
    with pytest.raises(InnkeeperError, match="the template is damaged"), template.found("copy"):
        raise AssertionError("not reached")


def test_what_a_killed_removal_left_is_swept(root: Path) -> None:
    left = root / f".key.0123abcd{template.REMOVED}"
    left.mkdir(parents=True)
    (left / "ram").write_bytes(b"x")
    template.prune()
    assert not left.exists()


def test_one_that_is_being_removed_is_not_there_and_not_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(root, "key")
    lock = files.lock(root / "key" / "lock", flags=os.O_RDONLY)
    with template.found("key") as found:
        assert found is None
    os.close(lock)
    seen: list[object] = []

    def rmtree(path: Path, ignore_errors: bool) -> None:
        with template.found("key") as found:
            seen.append(found)
        assert path.is_dir()

    monkeypatch.setattr("shutil.rmtree", rmtree)
    assert template.remove("key")
    assert seen == [None]


def test_one_process_makes_a_template(root: Path) -> None:
    code = "import sys; from innkeeper.vm import template; from pathlib import Path\n"
    code += f"template.templates_root = lambda: Path({str(root)!r})\n"
    code += "with template.making('key') as mine: print(mine)"
    (root / ".key.01234567").mkdir()  # left by a maker that was killed
    with template.making("key") as mine:
        assert mine
        assert not (root / ".key.01234567").exists()
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert other.stdout == "False\n"
        waiting = subprocess.Popen([sys.executable, "-c", code.replace("'key'", "'key', wait=True")], stdout=subprocess.PIPE, text=True)
    assert waiting.communicate()[0] == "True\n"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout == "True\n"


def test_a_failure_is_remembered_for_a_while(root: Path) -> None:
    assert template.recent_failure("key") is None
    template.note_failure("key", "no space left on device")
    assert template.recent_failure("key") == "no space left on device"
    assert template.summary() == (0, 0, "no space left on device")
    os.utime(root / ".key.failed", (1, 1))
    assert template.recent_failure("key") is None


def test_the_least_recently_used_templates_go(root: Path) -> None:
    for age, key in enumerate(("new", "middle", "old", "kept")):
        publish(root, key, size=1 << 20)
        os.utime(root / key / "template.json", (1000 - age, 1000 - age))
    template.prune(limit=5 << 19, keep="kept")
    assert sorted(path.name for path in root.iterdir()) == ["kept", "new"]


def test_memory_is_copied_with_its_holes(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        for offset in (0, 5 << 20, (64 << 20) - 4096):
            file.seek(offset)
            file.write(bytes([offset % 251 + 1]) * 4096)
    memory = saved_state.copy_memory(path)
    try:
        assert os.pread(memory, 64 << 20, 0) == path.read_bytes()
        assert os.fstat(memory).st_blocks * 512 < 1 << 20
    finally:
        os.close(memory)


def test_pages_of_zeros_become_holes(tmp_path: Path) -> None:
    path, page = tmp_path / "ram", saved_state.PAGE
    used = b"x" * page
    content = used + bytes(2 * page) + used * 600 + bytes(page - 1) + b"x" + bytes(3 * page)
    path.write_bytes(content)
    with path.open("r+b") as file:
        saved_state.punch_zeros(file.fileno())
        assert path.read_bytes() == content
        assert list(files.data_ranges(file.fileno())) == [(0, page), (3 * page, 604 * page)]
