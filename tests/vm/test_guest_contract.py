"""What of Kata's contract needs a guest: disks, hot-plug, swap, verity, memory limits, ports on vsock. One boot serves all."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from innkeeper import programs
from innkeeper.client import RpcError
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb import types_pb2
from innkeeper.wire.pb.csi_pb2 import VolumeStatsResponse
from tests.needs import needs
from tests.root.agent_helpers import read_to_end
from tests.vm.contract_helpers import BRIDGE, MIB, SHARED, TIMEOUT, Guest, container, disk, empty, guest_with, root_disk, with_mount

pytestmark = [pytest.mark.vm, needs("veritysetup", "mkswap", "sfdisk", "mke2fs", "mkfs.erofs", "busybox")]

ROOT, FRESH, SWAP, LAYERS, UPPER, NODE = range(0x10, 0x16)
"""Slots of the disks."""
WORDS = (
    *("agent.log_vport=1025", "agent.debug_console", "agent.debug_console_vport=1026", "agent.passfd_listener_port=1027"),
    *("agent.hotplug_timeout=60", "agent.log=debug", "agent.container_pipe_size=65536", "systemd.unified_cgroup_hierarchy=1", "maxcpus=1"),
)
VOLUME = "/run/kata-containers/sandbox/storage/dm9sdW1l"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, since the address of a socket is in it."""
    made = Path(mkdtemp(prefix="ink-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def verity(folder: Path) -> dict[str, str]:
    """A disk `layers.img` of two partitions, erofs and its hashes in each; what veritysetup says of them."""
    parts = []
    said: dict[str, str] = {}
    for number, name in enumerate(("top", "base"), 1):
        files = folder / f"{name}-files"
        files.mkdir()
        (files / "who").write_text(name)
        (files / name).touch()
        (files / "filler").write_bytes(bytes(range(256)) * 4096)
        image = folder / f"{name}.erofs"
        subprocess.run([programs.require("mkfs.erofs"), "--quiet", image, files], check=True, capture_output=True)
        size = -(-image.stat().st_size // 4096) * 4096
        with image.open("r+b") as file:
            file.truncate(size)
        more = ["--no-superblock"] if name == "base" else []
        told = subprocess.run(
            [programs.require("veritysetup"), "format", image, image, f"--hash-offset={size}", "--salt=aabbcc", *more],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        said[f"{name}.roothash"] = next(line.split()[-1] for line in told.splitlines() if line.startswith("Root hash:"))
        said[f"{name}.offset"] = str(size)
        parts.append((number, image))
    table = "label: gpt\n" + "".join(f"start={2048 * 8 * number}, size={2048 * 7}\n" for number, _ in parts)
    target = empty(folder / "layers.img", 24)
    subprocess.run([programs.require("sfdisk"), "--quiet", target], input=table.encode(), check=True)
    with target.open("r+b") as file:
        for number, image in parts:
            file.seek(8 * MIB * number)
            file.write(image.read_bytes())
    return said


@pytest.fixture(scope="module")
def guest(folder: Path, verity: dict[str, str]) -> Iterator[Guest]:
    (folder / "shared").mkdir()
    (folder / "shared/file").write_text("by 9p")
    subprocess.run([programs.require("mkswap"), empty(folder / "swap.img", 16)], check=True, capture_output=True)
    scsi = root_disk(folder / "scsi.img")
    pmem = root_disk(folder / "pmem.img")
    os.truncate(pmem, 128 * MIB)  # what is plugged in after it begins where it ends, and Linux takes whole blocks only
    devices = [
        *disk("root", root_disk(folder / "root.img"), ROOT),
        *disk("fresh", empty(folder / "fresh.img", 64), FRESH),
        *disk("swap", folder / "swap.img", SWAP),
        *disk("layers", folder / "layers.img", LAYERS),
        *disk("upper", empty(folder / "upper.img", 32), UPPER),
        *("-device", "virtio-scsi-pci,id=scsi,addr=0x18"),
        *("-blockdev", json.dumps({"driver": "raw", "node-name": "scsi-disk", "file": {"driver": "file", "filename": str(scsi)}})),
        *("-device", "scsi-hd,bus=scsi.0,channel=0,scsi-id=3,lun=1,drive=scsi-disk"),
        *("-fsdev", f"local,id=shared,path={folder}/shared,security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=shared,mount_tag=kataShared,addr=0x19"),
        *("-machine", "nvdimm=on", "-smp", "2", "-m", "512M,slots=4,maxmem=2G"),
        *("-object", f"memory-backend-file,id=pmem,share=on,mem-path={pmem},size=128M"),
        *("-device", "nvdimm,id=nvdimm,memdev=pmem"),
    ]
    with guest_with(folder, devices, WORDS, memory_mib=512) as made:
        made.follow_log(1025)
        made.sandbox(hostname="pod")
        yield made


def at(slot: int, point: str, fstype: str = "ext4", *options: str, driver: str = "blk", **fields: object) -> pb.Storage:
    return pb.Storage(driver=driver, source=f"{slot:x}", fstype=fstype, mount_point=point, options=options, **fields)  # type: ignore[arg-type]


def root_of(id: str) -> pb.Storage:
    """The disk with the busybox root, at the place of a container's root."""
    return at(ROOT, f"{SHARED}/{id}")


def test_memory_of_pid_1(guest: Guest) -> None:
    """One thread, within the budget, with the ports open and a sandbox made."""
    timeline = guest.agent.boot_timeline()
    assert timeline.threads == 1
    print(f"PID 1: {timeline.resident_bytes / MIB:.1f} MiB")
    assert timeline.resident_bytes < 20 * MIB


def test_root_by_pci_path(guest: Guest) -> None:
    """A disk by the slot it is in; the container that uses it, and its figures."""
    result = guest.run("c1", container("sh", "-c", "hostname; cat /proc/1/cmdline | tr '\\0' ' '"), storages=[root_of("c1")])
    assert result.stdout.startswith("pod\nsh -c hostname")
    guest.start("c1", container("sleep", "1000"), storages=[root_of("c1")])
    stats = guest.agent.stats_container("c1").cgroup_stats
    assert stats.cpu_stats.cpu_usage.total_usage > 0
    assert stats.memory_stats.usage.usage > 0
    assert stats.memory_stats.stats["anon"] > 0
    assert stats.pids_stats.current == 1
    guest.agent.pause_container("c1")
    guest.agent.resume_container("c1")
    guest.agent.signal_process("c1", "", 9)
    assert guest.agent.wait_process("c1", "c1", 60) == 137
    guest.agent.remove_container("c1")


def test_out_of_memory(guest: Guest) -> None:
    """Each event names the container; the first comes while GetOOMEvent waits for it, the others one by one."""
    heard: list[str] = []

    def hear(events: int) -> None:
        for _ in range(events):
            heard.append(guest.call("GetOOMEvent", pb.GetOOMEventRequest(), pb.OOMEvent, 120).container_id)

    waiting = threading.Thread(target=lambda: hear(3))
    waiting.start()
    limits = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    hungry = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    script = f"for i in 1 2; do {' '.join(hungry)}; done; exec {' '.join(hungry)}"
    result = guest.run("c1", container("sh", "-c", script, resources=limits), storages=[root_of("c1")])
    waiting.join(120)
    assert (result.status, heard) == (137, ["c1", "c1", "c1"])
    with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
        guest.call("GetOOMEvent", pb.GetOOMEventRequest(), pb.OOMEvent, 0.5)


def test_filesystem_made_and_grown(guest: Guest) -> None:
    """create_filesystem by the image's own mke2fs; ResizeVolume after the disk has become larger."""
    volume = at(FRESH, VOLUME, driver_options=["create_filesystem=true"])
    request = pb.VolumeStatsRequest(volume_guest_path=VOLUME)
    spec = with_mount(container("sh", "-c", "echo kept > /v/file; sleep 1000"), "/v", VOLUME)
    guest.start("c1", spec, storages=[root_of("c1"), volume])
    before = guest.call("GetVolumeStats", request, VolumeStatsResponse).usage[0].total
    guest.monitor.command("block_resize", node_name="fresh", size=128 * MIB)
    guest.do("ResizeVolume", pb.ResizeVolumeRequest(volume_guest_path=VOLUME, size=128 * MIB))
    after = guest.call("GetVolumeStats", request, VolumeStatsResponse).usage[0].total
    assert before < 64 * MIB < 100 * MIB < after
    assert guest.exec("c1", "e1", "cat", "/v/file").stdout == "kept\n"
    guest.agent.signal_process("c1", "", 9)
    guest.agent.remove_container("c1")


def verified(layer: str, verity: dict[str, str], number: int, point: str, **changes: str) -> pb.Storage:
    words = {
        "roothash": verity[f"{layer}.roothash"],
        "hashoffset": verity[f"{layer}.offset"],
        **({"salt": "aabbcc", "no-superblock": "true"} if layer == "base" else {}),
        **changes,
    }
    options = ["ro", "X-kata.overlay-lower", "X-kata.multi-layer=true", "X-kata.gpt-partitioned=true", f"X-kata.partition-number={number}"]
    options += ["X-kata.dmverity-enabled=true", *(f"X-kata.dmverity.{key}={value}" for key, value in words.items())]
    return at(LAYERS, point, "erofs", *options)


def test_verified_layers(guest: Guest, verity: dict[str, str]) -> None:
    """Two partitions of one disk, each with its root hash, under a disk that is formatted for it; all of it goes away again."""
    point = "/run/kata-containers/c2/rootfs"
    upper = at(
        UPPER, point, "mkfs/ext4", "rw", "X-kata.overlay-upper", "X-kata.multi-layer=true", "X-kata.mkdir.path={{ mount 0 }}/upper:0755"
    )
    layers = [upper, verified("top", verity, 1, point), verified("base", verity, 2, point)]
    spec = with_mount(container("sh", "-c", "cat /r/who; ls /r; echo > /r/new; ls /r | wc -l"), "/r", point)
    for _ in range(2):
        result = guest.run("c2", {**spec, "root": {"path": f"{SHARED}/c1/rootfs"}}, storages=[root_of("c1"), *layers])
        assert result.stdout == "topbase\nfiller\nlost+found\ntop\nwho\n6\n".replace("lost+found\n", "").replace("\n6\n", "\n5\n")


def test_a_wrong_root_hash(guest: Guest, verity: dict[str, str]) -> None:
    """Nothing is mounted, and nothing stays."""
    point = "/run/kata-containers/c2/rootfs"
    upper = at(UPPER, point, "mkfs/ext4", "X-kata.overlay-upper", "X-kata.multi-layer=true")
    wrong = verified("top", verity, 1, point, roothash="0" * 64)
    for _ in range(2):
        with pytest.raises(RpcError, match="mount /run/kata-containers/c2/multi-layer/lower-0"):
            guest.create("c2", container("true"), storages=[upper, wrong])
    metrics = guest.call("GetMetrics", pb.GetMetricsRequest(), pb.Metrics).metrics
    assert 'disk="dm-' not in metrics


def test_other_disks(guest: Guest) -> None:
    """The same root by SCSI, by the node of a disk, and in persistent memory."""
    for driver, source in (("scsi", "3:1"), ("nvdimm", "/dev/pmem0"), ("mmioblk", "/dev/sda")):
        storage = pb.Storage(driver=driver, source=source, fstype="ext4", mount_point=f"{SHARED}/c1")
        assert guest.run("c1", container("echo", driver), storages=[storage]).stdout == f"{driver}\n"


def test_9p(guest: Guest) -> None:
    share = pb.Storage(
        driver="9p",
        source="kataShared",
        fstype="9p",
        mount_point="/run/kata-containers/nine",
        options=["trans=virtio,version=9p2000.L,cache=mmap", "nodev", "msize=8192"],
    )
    spec = with_mount(container("cat", "/n/file"), "/n", "/run/kata-containers/nine")
    assert guest.run("c1", spec, storages=[root_of("c1"), share]).stdout == "by 9p"


@pytest.mark.parametrize(
    "device",
    [
        pb.Device(type="blk", id=f"{SWAP:x}", vm_path="/dev/vdq", container_path="/dev/x"),
        pb.Device(type="scsi", id="3:1", container_path="/dev/x"),
        pb.Device(type="nvdimm", vm_path="/dev/pmem0", container_path="/dev/x"),
    ],
    ids=lambda device: device.type,
)
def test_a_disk_as_a_device(guest: Guest, device: pb.Device) -> None:
    """By the name that its kind has, under a name of the container's."""
    spec = container("sh", "-c", "head -c 4096 /dev/x | wc -c")
    spec["linux"]["devices"] = [{"path": "/dev/x", "type": "b", "major": 1, "minor": 1, "fileMode": 0o600, "uid": 0, "gid": 0}]
    assert guest.run("c1", spec, storages=[root_of("c1")], devices=[device]).stdout == "4096\n"


def test_paused_and_resumed(guest: Guest) -> None:
    """Input waits for a program that is frozen."""
    guest.start("c1", container("cat"), storages=[root_of("c1")])
    guest.do("PauseContainer", pb.PauseContainerRequest(container_id="c1"))
    guest.call("WriteStdin", pb.WriteStreamRequest(container_id="c1", exec_id="c1", data=b"thawed"), pb.WriteStreamResponse)
    read = pb.ReadStreamRequest(container_id="c1", exec_id="c1", len=64)
    with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
        guest.call("ReadStdout", read, pb.ReadStreamResponse, 0.5)
    guest.do("ResumeContainer", pb.ResumeContainerRequest(container_id="c1"))
    assert guest.call("ReadStdout", read, pb.ReadStreamResponse).data == b"thawed"
    stats = guest.call("StatsContainer", pb.StatsContainerRequest(container_id="c1"), pb.StatsContainerResponse)
    assert stats.cgroup_stats.pids_stats.current == 1
    guest.agent.remove_container("c1")


def test_swap(guest: Guest) -> None:
    guest.do("AddSwap", pb.AddSwapRequest(PCIPath=[SWAP]))
    swaps = guest.run("c1", container("cat", "/proc/swaps"), storages=[root_of("c1")]).stdout
    assert swaps.count("partition") == 1
    node = swaps.splitlines()[1].split()[0]
    with pytest.raises(RpcError, match="busy"):
        guest.do("AddSwapPath", pb.AddSwapPathRequest(path=node))


def test_packet_filter(guest: Guest) -> None:
    """The image's own iptables, both families, by the matches and targets that a service mesh uses."""
    rules = "*nat\n-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001\nCOMMIT\n"
    for is_ipv6 in (False, True):
        guest.call("SetIPTables", pb.SetIPTablesRequest(is_ipv6=is_ipv6, data=rules.encode()), pb.SetIPTablesResponse)
        read = guest.call("GetIPTables", pb.GetIPTablesRequest(is_ipv6=is_ipv6), pb.GetIPTablesResponse).data.decode()
        assert "-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001" in read


def test_clock_and_entropy(guest: Guest) -> None:
    guest.do("SetGuestDateTime", pb.SetGuestDateTimeRequest(Sec=2_000_000_000, Usec=5))
    assert guest.run("c1", container("date", "-u", "+%Y"), storages=[root_of("c1")]).stdout == "2033\n"
    guest.do("ReseedRandomDev", pb.ReseedRandomDevRequest(data=b"seed" * 16))
    details = guest.call("GetGuestDetails", pb.GuestDetailsRequest(mem_block_size=True, mem_hotplug_probe=True), pb.GuestDetailsResponse)
    assert (details.mem_block_size_bytes, details.support_mem_hotplug_probe) == (128 * MIB, False)
    probe = guest.refusal("MemHotplugByProbe", pb.MemHotplugByProbeRequest(memHotplugProbeAddr=[1 << 32]))
    assert "learns of memory by itself" in probe.message


def test_huge_pages(guest: Guest) -> None:
    storage = pb.Storage(
        driver="ephemeral",
        source="nodev",
        fstype="hugetlbfs",
        mount_point="/run/kata-containers/sandbox/ephemeral/huge",
        options=[f"pagesize={2 * MIB},size={4 * MIB}"],
    )
    spec = with_mount(container("sh", "-c", "mount | grep /huge"), "/huge", storage.mount_point)
    assert "hugetlbfs" in guest.run("c1", spec, storages=[root_of("c1"), storage]).stdout


def test_a_disk_plugged_while_it_is_waited_for(guest: Guest, folder: Path) -> None:
    """Behind a bridge, as the shim does it: the call is made first, the disk comes later."""
    root_disk(folder / "late.img")
    storage = pb.Storage(driver="blk", source=f"{BRIDGE}/03", fstype="ext4", mount_point=f"{SHARED}/c1")
    created: list[object] = []

    def create() -> None:
        try:
            guest.create("c1", container("echo", "late"), storages=[storage])
            created.append(None)
        except RpcError as error:
            created.append(error)

    waiting = threading.Thread(target=create)
    waiting.start()
    guest.monitor.command("blockdev-add", driver="raw", node_name="late", file={"driver": "file", "filename": str(folder / "late.img")})
    guest.monitor.command("device_add", driver="virtio-blk-pci", id="late", drive="late", bus="bridge", addr="0x3")
    waiting.join(120)
    assert created == [None]
    guest.agent.start_container("c1")
    assert guest.finish("c1").stdout == "late\n"
    guest.agent.remove_container("c1")


def test_an_interface_plugged(guest: Guest) -> None:
    """By its PCI path: named, addressed, up."""
    guest.monitor.command("netdev_add", type="user", id="late-net", restrict=True)
    mac = "02:00:00:00:00:07"
    guest.monitor.command("device_add", driver="virtio-net-pci", id="late-nic", netdev="late-net", bus="bridge", addr="0x4", mac=mac)
    address = types_pb2.IPAddress(family=types_pb2.v4, address="10.9.0.2", mask="24")
    wanted = types_pb2.Interface(device="eth5", name="eth5", IPAddresses=[address], mtu=1400, hwAddr=mac, devicePath=f"{BRIDGE}/04")
    guest.agent.update_interface(wanted)
    found = next(interface for interface in guest.agent.list_interfaces() if interface.name == "eth5")
    assert (found.hwAddr, found.mtu) == (mac, 1400)
    assert any(item.address == "10.9.0.2" for item in found.IPAddresses)


def test_a_processor_that_was_off(guest: Guest) -> None:
    """It works once OnlineCPUMem has said how many there are to be. One that is plugged in is off like this one; but this kernel makes room
    for such only where it sees that it is a guest, which under emulation it does not."""
    assert guest.run("c1", container("nproc"), storages=[root_of("c1")]).stdout == "1\n"
    guest.do("OnlineCPUMem", pb.OnlineCPUMemRequest(nb_cpus=2, cpu_only=True))
    assert guest.run("c1", container("nproc"), storages=[root_of("c1")]).stdout == "2\n"


def test_memory_plugged(guest: Guest) -> None:
    def total() -> int:
        text = guest.run("c1", container("grep", "MemTotal", "/proc/meminfo"), storages=[root_of("c1")]).stdout
        return int(text.split()[1]) * 1024

    before = total()
    guest.monitor.command("object-add", **{"qom-type": "memory-backend-memfd", "id": "more", "size": 256 * MIB, "share": True})
    guest.monitor.command("device_add", driver="pc-dimm", id="dimm", memdev="more")
    deadline = time.monotonic() + TIMEOUT
    while total() - before < 200 * MIB:  # the firmware's word for it is on its way
        assert time.monotonic() < deadline
        guest.do("OnlineCPUMem", pb.OnlineCPUMemRequest())


def test_log_port(guest: Guest) -> None:
    (first,) = guest.logged("announce")
    assert {"msg", "level", "ts", "name", "source", "subsystem", "pid", "version"} <= set(first)


def test_console_of_a_release_image(guest: Guest) -> None:
    with guest.dial(1026) as console:
        assert read_to_end(lambda: console.recv(4096)).startswith("This guest is a release image: it has no shell.")


def test_streams_passed_on(guest: Guest) -> None:
    """By vsock: the port at the host's end is the stream's name."""
    with guest.dial_stream(1027) as (stdin, stdin_port), guest.dial_stream(1027) as (stdout, stdout_port):
        spec = container("sh", "-c", "read line; echo got $line")
        guest.start("c1", spec, storages=[root_of("c1")], stdin_port=stdin_port, stdout_port=stdout_port)
        stdin.sendall(b"it\n")
        assert read_to_end(lambda: stdout.recv(4096)) == "got it\n"
        assert guest.agent.wait_process("c1", "c1", 60) == 0
        guest.agent.remove_container("c1")
