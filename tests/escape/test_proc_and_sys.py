"""/proc, /sys and devices: what tells of the machine is hidden, what steers it cannot be written, what it is made of cannot be opened."""

import hashlib
from typing import Any

import pytest

from innkeeper.image import defaults
from tests.escape.documents import EXEC, IDENTITIES, ROOT, USERNS, map_users
from tests.escape.target import Target
from tests.escape.target_guest import Guest

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

everyone = pytest.mark.parametrize("who", IDENTITIES)
REFUSED = frozenset(("EPERM", "EACCES", "EROFS", "ENOENT", "EINVAL"))
STEERING = (
    "/proc/sys/kernel/core_pattern=core", "/proc/sys/kernel/modprobe=/x", "/proc/sys/kernel/poweroff_cmd=/x", "/proc/sys/kernel/panic=0",
    "/proc/sys/vm/drop_caches=1", "/proc/sys/fs/binfmt_misc/register=x", "/sys/kernel/uevent_helper=/x", "/sys/kernel/mm/ksm/run=0",
    "/sys/fs/cgroup/cgroup.procs=1", "/sys/fs/cgroup/memory.max=max", "/sys/fs/cgroup/pids.max=max", "/proc/sysrq-trigger=h",
    "/proc/irq/default_smp_affinity=1", "/proc/acpi/wakeup=x", "/proc/1/root/proc/sys/kernel/core_pattern=core",
)  # fmt: skip
TELLING = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/interrupts",
    "/proc/latency_stats",
    "/proc/kallsyms",
)
HIDDEN_DIRECTORIES = ("/sys/firmware", "/proc/acpi", "/proc/scsi", "/proc/asound", "/sys/devices/virtual/powercap")
NODES = {
    "/dev/mem": "c:1:1", "/dev/port": "c:1:4", "/dev/kmsg": "c:1:11", "/dev/tty1": "c:4:1", "/dev/ttyS0": "c:4:64", "/dev/loop0": "b:7:0",
    "/dev/loop-control": "c:10:237", "/dev/fuse": "c:10:229", "/dev/vsock": "c:10:121", "/dev/kvm": "c:10:232", "/dev/net/tun": "c:10:200",
    "/dev/dm-0": "b:253:0", "/dev/mapper/control": "c:10:236", "/dev/vda": "b:254:0", "/dev/sda": "b:8:0", "/dev/pmem0": "b:259:0",
    "/dev/hpet": "c:10:228", "/dev/uinput": "c:10:223", "/dev/userfaultfd": "c:10:125",
}  # fmt: skip


@pytest.mark.escape("E19")
@everyone
def test_what_steers_the_machine_cannot_be_written(target: Target, who: str) -> None:
    written = target.attack(who, "write", *STEERING).of("write")
    assert len(written) == len(STEERING)
    assert set(written.values()) <= REFUSED


@pytest.mark.escape("E19", "E20")
@everyone
def test_no_mount_can_be_changed_or_taken_away(target: Target, who: str) -> None:
    report = target.attack(who, "remounts")
    assert len(report.answers) > 50
    assert {answer.answer for answer in report.answers} <= {"EPERM", "EINVAL", "ENOENT"}


@pytest.mark.escape("E19", "E20")
def test_root_of_a_user_namespace_cannot_steer_the_machine(target: Target) -> None:
    """Not even with every capability there: what it may do is to mount afresh, and the machine's settings are not its own."""
    with_all = target.attack(USERNS, "write", *STEERING, change=target.all_capabilities)
    assert set(with_all.of("write").values()) <= REFUSED


@pytest.mark.escape("E20")
@everyone
def test_what_tells_of_the_machine_is_hidden(target: Target, who: str) -> None:
    report = target.attack(who, "read", *TELLING, "+", "list", *HIDDEN_DIRECTORIES)
    for path, answer in report.of("read").items():
        if path != "/proc/kallsyms":  # shows zeros to whoever may not see addresses
            assert answer in REFUSED or report.values("read")[path] == "", path
    for path, answer in report.of("list").items():
        assert answer in ("ENOENT", "EACCES") or report.values("list")[path] == "", path


@pytest.mark.escape("E21")
@everyone
def test_devices_that_no_rule_names_cannot_be_opened(target: Target, who: str) -> None:
    report = target.attack(who, "devices", "/tmp", *NODES.values())
    made = report.of("mknod")
    assert len(made) == len(NODES)
    for attempt in ("open to read", "open to write", "open"):
        opened = report.all(attempt)
        assert {answer.answer for answer in opened} <= {"EPERM", "EACCES"}
        assert len(opened) == sum(answer == "ok" for answer in made.values())
    if who in (ROOT, EXEC):
        assert "ok" in made.values(), "CAP_MKNOD is in the default set: the device program must be what refuses"


@pytest.mark.escape("E21")
def test_a_node_of_an_image_is_no_way_in(target: Target) -> None:
    """A container that may not make nodes can bring them, where its root is not mounted nodev."""
    if target.slow:  # the share of the test's folder makes no nodes: that is its own protection
        report = target.attack(ROOT, "devices", "/volume", "c:1:1")
        assert report.of("mknod")["c:1:1"] in ("EPERM", "EACCES", "EOPNOTSUPP")
        return
    import os
    import stat

    root = target.make_root("with-nodes")
    os.mknod(root / "mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    os.mknod(root / "kmsg", stat.S_IFCHR | 0o666, os.makedev(1, 11))
    report = target.attack(ROOT, "read", "/mem", "/kmsg", "+", "write", "/kmsg=x", root=root)
    assert {*report.of("read").values(), *report.of("write").values()} == {"EPERM"}


@pytest.mark.escape("E22", "E36")
@everyone
def test_disks_of_the_machine_cannot_be_opened(target: Target, who: str) -> None:
    report = target.attack(who, "partitions", "/tmp")
    assert report.of("mknod")
    opened = [*report.all("open to read"), *report.all("open to write"), *report.all("open")]
    assert {answer.answer for answer in opened} <= {"EPERM", "EACCES"}


@pytest.mark.escape("E22", "E36")
def test_disks_are_refused_to_a_container_with_every_capability(target: Target) -> None:
    """As `--privileged`, but for a rule that gives every device."""
    report = target.attack(ROOT, "partitions", "/tmp", "+", "devices", "/tmp", *NODES.values(), change=target.all_capabilities)
    assert "ok" in report.of("mknod").values()
    opened = [*report.all("open to read"), *report.all("open to write"), *report.all("open")]
    assert {answer.answer for answer in opened} == {"EPERM"}


@pytest.mark.escape("E36")
@pytest.mark.vm
def test_the_guests_root_is_the_same_afterwards(inside: Guest) -> None:
    """Bit by bit, after whatever a container with every capability has tried."""
    image = inside.vm.config.root
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    writing = ("/proc/1/root/usr/x=x", "/proc/1/exe=x", "/dev/vda=x", "/dev/mem=x")
    report = inside.attack(
        ROOT, "partitions", "/tmp", "+", "devices", "/tmp", *NODES.values(), "+", "write", *writing, change=inside.all_capabilities
    )
    assert set(report.of("write").values()) <= {"EPERM", "EROFS", "ENOENT", "EACCES", "ETXTBSY"}
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def writable_cgroup(doc: dict[str, Any]) -> None:
    """Mount the group of the container for writing, with a group namespace of its own."""
    for mount in doc["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"].remove("ro")


@pytest.mark.escape("E17")
@pytest.mark.parametrize("who", [ROOT, USERNS, EXEC])
def test_no_group_above_the_containers_own_can_be_written(target: Target, who: str) -> None:
    writing = ["/sys/fs/cgroup/../cgroup/cgroup.procs=1", "/sys/fs/cgroup/../../../cgroup.procs=0"]
    report = target.attack(who, "make", "/sys/fs/cgroup", "+", "write", *writing, "+", "list", "/sys/fs/cgroup")
    assert set(report.of("mkdir").values()) <= {"EROFS", "EACCES"}
    assert set(report.of("write").values()) <= REFUSED
    assert "innkeeper-agent" not in report.values("list")["/sys/fs/cgroup"]


@pytest.mark.escape("E17")
def test_root_of_a_user_namespace_owns_no_group(target: Target) -> None:
    def change(doc: dict[str, Any]) -> None:
        map_users(doc)
        writable_cgroup(doc)

    report = target.attack(ROOT, "make", "/sys/fs/cgroup", "+", "write", "/sys/fs/cgroup/cgroup.procs=0", change=change)
    assert set(report.of("mkdir").values()) <= {"EROFS", "EACCES"}
    assert set(report.of("write").values()) <= {"EROFS", "EACCES"}


def test_the_lists_are_the_profiles_own() -> None:
    """What the tests look at is what the default profile hides."""
    assert set(HIDDEN_DIRECTORIES) <= set(defaults.MASKED_PATHS)
    assert {"/proc/kcore", "/proc/keys", "/proc/timer_list"} <= set(defaults.MASKED_PATHS)
