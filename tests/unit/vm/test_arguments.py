"""QEMU's argument list, the kernel's command line, port forwards: pure functions of their input."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.vm import bootfacts, kernel_cmdline, network, qemu, tsc, virtiofsd
from innkeeper.vm.config import Disk, Forward, Share, SharedPath, Tap, VmConfig


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    out = {name: tmp_path / name for name in ("kernel", "root", "image,with comma", "scratch")}
    for path in out.values():
        path.write_bytes(b"x")
    return out


def spec_of(files: dict[str, Path], **fields: object) -> VmConfig:
    return VmConfig(kernel=files["kernel"], root=files["root"], **fields)  # type: ignore[arg-type]


def argv_of(spec: VmConfig, machine_type: str = "q35", accel: str = "tcg", **fields: object) -> list[str]:
    return qemu.arguments(
        qemu.Launch(config=spec, program="qemu", name="id", machine_type=machine_type, accel=accel, cmdline="a b", **fields)  # type: ignore[arg-type]
    )


def values(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_disks_come_in_order_and_with_their_access(files: dict[str, Path]) -> None:
    spec = spec_of(files, disks=(Disk(files["image,with comma"], read_only=True), Disk(files["scratch"], volatile=True)))
    nodes = [json.loads(v) for v in values(argv_of(spec), "-blockdev")]
    assert [n["file"]["filename"] for n in nodes] == [str(files[n]) for n in ("root", "image,with comma", "scratch")]
    assert [n["read-only"] for n in nodes] == [True, True, False]
    assert nodes[2]["cache"] == {"no-flush": True}
    assert "discard" in nodes[2] and "discard" not in nodes[0]
    assert [v.split(",")[1] for v in values(argv_of(spec), "-device") if v.startswith("virtio-blk")] == [f"drive=disk{i}" for i in range(3)]


def test_qemu_is_confined_and_given_nothing_by_default(files: dict[str, Path]) -> None:
    argv = argv_of(spec_of(files))
    assert values(argv, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert values(argv, "-display") == ["none"]
    assert not {"-monitor", "-qmp"} & set(argv)


def test_microvm_devices_sit_in_fixed_slots(files: dict[str, Path]) -> None:
    argv = argv_of(spec_of(files), "microvm", vsock_device="vhost-vsock,guest-cid=7,vhostfd=5")
    devices = values(argv, "-device")
    assert [d.split(",")[1] for d in devices] == [f"bus=virtio-mmio-bus.{7 - i}" for i in range(len(devices))]
    assert not any("-pci" in d for d in devices)
    assert "virtio-mmio.force-legacy=false" in values(argv, "-global")
    assert "vhost-vsock-device,bus=virtio-mmio-bus.6,guest-cid=7,vhostfd=5" in devices


def test_microvm_until_its_slots_are_used_up(files: dict[str, Path], tmp_path: Path) -> None:
    three = tuple(Disk(files["scratch"]) for _ in range(3))
    assert qemu.choose_machine_type(spec_of(files, disks=three)) == "microvm"
    assert qemu.choose_machine_type(spec_of(files, disks=(*three, Disk(files["scratch"])))) == "q35"
    with pytest.raises(InnkeeperError, match="8 virtio devices"):
        qemu.choose_machine_type(spec_of(files, disks=(*three, Disk(files["scratch"])), machine_type="microvm"))
    assert qemu.choose_machine_type(spec_of(files, machine_type="q35")) == "q35"
    assert qemu.choose_machine_type(spec_of(files), clock=False) == "q35"


@pytest.mark.parametrize("machine_type", ["microvm", "q35"])
def test_free_memory_is_reported_unless_clones_share_it(files: dict[str, Path], machine_type: str) -> None:
    devices = values(argv_of(spec_of(files), machine_type), "-device")
    assert devices[-1].startswith("virtio-balloon-") and "free-page-reporting=on" in devices[-1]
    assert not any("balloon" in d for d in values(argv_of(spec_of(files, gives_memory_back=False), machine_type), "-device"))
    with pytest.raises(InnkeeperError, match="cloneable VM cannot be given back"):
        spec_of(files, cloneable=True)
    assert spec_of(files, cloneable=True, gives_memory_back=False).cloneable


def test_kvm_gets_the_host_cpu_or_the_proven_model(files: dict[str, Path]) -> None:
    assert values(argv_of(spec_of(files), accel="kvm"), "-cpu") == ["host"]
    assert values(argv_of(spec_of(files), accel="kvm", cpu="kvm64,+cx16"), "-cpu") == ["kvm64,+cx16"]
    assert values(argv_of(spec_of(files), accel="tcg"), "-accel")[0].startswith("tcg")


def test_shares_are_descriptors_and_tags(files: dict[str, Path], tmp_path: Path) -> None:
    spec = spec_of(files, shares=(Share.of("one", tmp_path), Share.of("two", tmp_path)))
    argv = argv_of(spec, share_fds=(11, 12))
    assert values(argv, "-chardev")[1:] == ["socket,id=share0,fd=11", "socket,id=share1,fd=12"]
    assert [d for d in values(argv, "-device") if "fs" in d] == [
        f"vhost-user-fs-pci,chardev=share{i},tag={t}" for i, t in enumerate(("one", "two"))
    ]


def test_more_devices_than_slots_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    shares = tuple(Share.of(f"share{number}", tmp_path) for number in range(qemu.PCI_SLOTS))
    assert qemu.choose_machine_type(spec_of(files, shares=shares[:-5])) == "q35"
    with pytest.raises(InnkeeperError, match="slots for 30 virtio devices"):
        qemu.choose_machine_type(spec_of(files, shares=shares))


def test_no_network_means_no_card(files: dict[str, Path]) -> None:
    assert values(argv_of(spec_of(files, network=False)), "-netdev") == []
    with pytest.raises(InnkeeperError, match="without a network"):
        spec_of(files, network=False, forwards=(Forward("tcp", "", 80, 80),))


def test_a_tap_takes_the_place_of_the_user_network(files: dict[str, Path]) -> None:
    taps = tuple(Tap(fd, f"02:00:00:00:00:0{fd - 6}", Path("/run/netns/pod")) for fd in (7, 8))
    argv = argv_of(spec_of(files, network=taps))
    assert values(argv, "-netdev") == ["tap,id=net,fd=7", "tap,id=net1,fd=8"]
    assert "virtio-net-pci,netdev=net1,mac=02:00:00:00:00:02,romfile=,disable-legacy=on" in values(argv, "-device")
    assert "virtio-net-pci,netdev=net,mac=02:00:00:00:00:01,romfile=,disable-legacy=on" in values(argv, "-device")
    with pytest.raises(InnkeeperError, match="no forwarded ports"):
        spec_of(files, network=taps, forwards=(Forward("tcp", "", 80, 80),))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_mib": 16}, "64 MiB"),
        ({"cpus": 0}, "one CPU"),
        ({"accel": "hvf"}, "hvf"),
        ({"machine_type": "pc"}, "pc"),
        ({"machine_type": "virt", "accel": "kvm"}, "emulated on this host"),
        ({"disks": (Disk(Path("/nowhere")),)}, "disk 0.*/nowhere"),
    ],
)
def test_a_spec_is_refused_by_name(files: dict[str, Path], fields: dict[str, object], message: str) -> None:
    with pytest.raises(InnkeeperError, match=message):
        spec_of(files, **fields)


def test_a_share_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="no such file"):
        Share.of("tag", tmp_path / "missing")
    with pytest.raises(InnkeeperError, match="tag"):
        Share.of("t" * 37, tmp_path)
    with pytest.raises(InnkeeperError, match="tag"):
        Share.of("a,b", tmp_path)
    for paths in ((), (SharedPath("", tmp_path), SharedPath("a", tmp_path)), (SharedPath("a", tmp_path), SharedPath("a", tmp_path))):
        with pytest.raises(InnkeeperError, match="one path, or several"):
            Share("tag", paths)
    with pytest.raises(InnkeeperError, match="plain name"):
        SharedPath("..", tmp_path)


def test_kernel_words_are_quoted_as_the_kernel_takes_them() -> None:
    assert kernel_cmdline.quote("quiet") == "quiet"
    assert kernel_cmdline.quote("dm-mod.create=dm-verity,,,ro,0 8 verity") == 'dm-mod.create="dm-verity,,,ro,0 8 verity"'
    for bad in ('a="b"', "a\nb", "", "a\0"):
        with pytest.raises(InnkeeperError):
            kernel_cmdline.quote(bad)
    with pytest.raises(InnkeeperError, match="the kernel takes"):
        kernel_cmdline.join(["x" * 2048])


def test_the_command_line_tells_what_the_machine_is() -> None:
    def line(machine_type: str, ready: int | None, quiet: bool = True) -> list[str]:
        return kernel_cmdline.build(
            machine_type=machine_type, quiet=quiet, root_device="/dev/vda", root_type="erofs", ready_port=ready, extra=["last=1"]
        ).split()

    assert "acpi=off" in line("microvm", None)
    assert "acpi=off" not in line("q35", None)
    assert "INNKEEPER_READY=77" in line("q35", 77)
    assert not [w for w in line("q35", None) if w.startswith("innkeeper.ready")]
    assert "quiet" not in line("q35", None, quiet=False)
    assert not [w for w in line("microvm", None) if w.startswith("tsc_early_khz")]
    assert line("q35", None)[-1] == "last=1"
    assert {"root=/dev/vda", "rootfstype=erofs", "ro", "panic=-1"} <= set(line("q35", None))


def test_a_guest_for_aarch64_has_its_machine_and_console(files: dict[str, Path]) -> None:
    spec = spec_of(files, machine_type="virt", accel="tcg")
    assert qemu.choose_machine_type(spec) == "virt"
    argv = argv_of(spec, "virt", vsock_device="virtio-serial,max_ports=2")
    assert [value.split(",")[0] for value in values(argv, "-machine")] == ["virt"]
    assert values(argv, "-cpu") == ["max,pauth-impdef=on"]
    assert all("-pci" in device or device.startswith("virtserialport") for device in values(argv, "-device"))
    line = kernel_cmdline.build(machine_type="virt", quiet=False, root_device="/dev/vda", root_type="erofs").split()
    assert "console=ttyAMA0" in line
    assert not {"console=ttyS0", "tsc=reliable", "reboot=t", "acpi=off", *kernel_cmdline.LEGACY_HARDWARE} & set(line)


def test_a_free_port_is_found_and_a_used_one_is_named() -> None:
    (forward,) = network.resolve_ports([Forward("tcp", "127.0.0.1", 0, 80)]).forwards
    assert forward.host_port > 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InnkeeperError, match=f"port {port}/tcp of the host is in use"):
            network.resolve_ports([Forward("tcp", "127.0.0.1", port, 80)])
    with pytest.raises(InnkeeperError, match=r"192\.0\.2\.1 is not an address"):
        network.resolve_ports([Forward("tcp", "192.0.2.1", 0, 80)])


def test_the_same_port_twice_is_refused() -> None:
    (free,) = network.resolve_ports([Forward("udp", "127.0.0.1", 0, 80)]).forwards
    with pytest.raises(InnkeeperError, match="in use"):
        network.resolve_ports([free, free])


def test_forwards_reach_qemu_and_its_complaint_comes_back_in_words() -> None:
    assert network.netdev([Forward("udp", "127.0.0.1", 53, 5353)]) == "user,id=net,hostfwd=udp:127.0.0.1:53-:5353"
    said = "qemu: -netdev user,id=net: Could not set up host forwarding rule 'tcp::6379-:6379'"
    assert network.explain(said) == "-p: port 6379/tcp of the host is in use"
    assert network.explain("something else") is None


def test_both_virtiofsd_take_a_path_with_a_comma(tmp_path: Path) -> None:
    stand = tmp_path / "a,b"
    assert f"source={tmp_path}/a\\,b," in virtiofsd.command(Path("/x/virtiofsd"), stand, "s.sock", rust=False)[-1]
    assert f"--shared-dir={stand}" in virtiofsd.command(Path("/x/virtiofsd"), stand, "s.sock", rust=True)


def test_the_time_stamp_counter_is_measured_or_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path))
    first = tsc.khz()
    assert first is None or 100_000 <= first < 20_000_000
    monkeypatch.setattr(tsc, "measure", lambda: pytest.fail("measured twice in one boot"))
    if first is not None:
        assert tsc.khz() == first


@pytest.mark.parametrize(
    ("measured", "used"),
    [(2_299_998, 2_299_997), (2_300_226, 2_299_997), (2_299_767, 2_299_767), (2_300_228, 2_300_228), (3_000_000, 3_000_000)],
)
def test_the_rate_of_the_counter_outlasts_a_reboot(measured: int, used: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the key of every template and snapshot. What differs by 100 ppm or less was measured inexactly."""
    boot = tmp_path / "boot_id"
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path))
    monkeypatch.setattr(bootfacts, "BOOT_ID", boot)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    for name, rate, expected in (("first", 2_299_997, 2_299_997), ("second", measured, used), ("third", used + 1, used)):
        boot.write_text(f"{name}\n")
        monkeypatch.setattr(tsc, "measure", lambda rate=rate: rate)
        assert tsc.khz() == expected
        monkeypatch.setattr(tsc, "measure", lambda: pytest.fail("measured twice in one boot"))
        assert tsc.khz() == expected


def test_a_rate_that_cannot_be_measured_after_a_reboot_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    (tmp_path / "host-tsc.json").write_text('{"boot_id": "earlier", "value": 2299997}')
    monkeypatch.setattr(tsc, "measure", lambda: None)
    assert tsc.khz() is None
    (tmp_path / "host-tsc.json").write_text('{"boot_id": "earlier", "value": "fast"}')
    monkeypatch.setattr(tsc, "measure", lambda: 2_299_998)
    assert tsc.khz() == 2_299_998


def test_paths_hold_wherever_qemu_stands(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files["kernel"].parent)
    argv = argv_of(VmConfig(kernel=Path("kernel"), root=Path("root")))
    assert values(argv, "-kernel") == [str(files["kernel"])]
    assert json.loads(values(argv, "-blockdev")[0])["file"]["filename"] == str(files["root"])


def test_an_initrd_is_passed_and_has_to_exist(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files["kernel"].parent)
    assert values(argv_of(spec_of(files)), "-initrd") == []
    assert values(argv_of(spec_of(files, initrd=Path("scratch"))), "-initrd") == [str(files["scratch"])]
    with pytest.raises(InnkeeperError, match="initrd of the VM: absent is not a file"):
        spec_of(files, initrd=Path("absent"))


def test_a_card_on_a_tap_is_plugged_into_a_clone(files: dict[str, Path]) -> None:
    """Its back end cannot be saved. The template has a port for it, at the path that the agent is told."""
    tap = Tap(fd=9, mac="02:00:00:00:00:01", namespace=Path("/proc/self/ns/net"))
    clone = spec_of(files, network=(tap,), cloneable=True, gives_memory_back=False)
    words = argv_of(clone, generation="g")
    assert words[words.index("-netdev") + 1] == "tap,id=net,fd=9"
    assert not [word for word in words if word.startswith("virtio-net")]
    assert f"pcie-root-port,id=card-port,chassis=9,io-reserve=0,addr={int(qemu.CARD_PATH.split('/')[0], 16):#x}" in words
    assert qemu.card_device(tap) == {
        "driver": "virtio-net-pci",
        "netdev": "net",
        "mac": tap.mac,
        "romfile": "",
        "bus": "card-port",
        "id": "card",
    }
    without = argv_of(replace(clone, network=False), generation="g")
    assert [word for word in words if word not in without] == ["-netdev", "tap,id=net,fd=9"]


def test_a_bus_that_disks_are_plugged_into(files: dict[str, Path]) -> None:
    argv = argv_of(spec_of(files, plugs_disks=True, machine_type="microvm"), machine_type="microvm")
    assert "virtio-scsi-device,bus=virtio-mmio-bus.3,id=scsi" in values(argv, "-device")
