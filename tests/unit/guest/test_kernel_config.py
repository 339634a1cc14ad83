"""Kernel configuration fragments: what the parser refuses, how they are put together, and that ours have what is promised."""

from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.guest import kconfig
from innkeeper.guest.kernel import SOURCES, Source
from tests.paths import ROOT

FRAGMENTS = ROOT / "kernel-config"

# Symbols that Kata's shim with QEMU needs, topic by topic, and those the agent insists on.
CONTRACT = """
64BIT SMP PVH HYPERVISOR_GUEST KVM_GUEST PARAVIRT ACPI PCI PCI_MSI PCI_MMCONFIG RELOCATABLE PRINTK TTY UNIX98_PTYS
SERIAL_8250 SERIAL_8250_CONSOLE HW_RANDOM HW_RANDOM_VIRTIO
VIRTIO_PCI VIRTIO_PCI_LEGACY VIRTIO_BLK VIRTIO_NET VIRTIO_CONSOLE VIRTIO_BALLOON SCSI BLK_DEV_SD SCSI_VIRTIO VSOCKETS
VIRTIO_VSOCKETS FUSE_FS VIRTIO_FS VIRTIO_MMIO VIRTIO_MMIO_CMDLINE_DEVICES NET_9P NET_9P_VIRTIO 9P_FS VIRTIO_MEM
HOTPLUG_PCI HOTPLUG_PCI_ACPI HOTPLUG_PCI_PCIE PCIEPORTBUS HOTPLUG_PCI_SHPC ACPI_HOTPLUG_CPU HOTPLUG_CPU ACPI_HOTPLUG_MEMORY
MEMORY_HOTPLUG MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO
ACPI_NFIT LIBNVDIMM BLK_DEV_PMEM NVDIMM_PFN NVDIMM_DAX DAX FS_DAX ZONE_DEVICE MEMORY_HOTREMOVE SPARSEMEM_VMEMMAP VIRTIO_PMEM
DEVTMPFS DEVTMPFS_MOUNT TMPFS TMPFS_XATTR TMPFS_POSIX_ACL PROC_FS SYSFS EXT4_FS XFS_FS EROFS_FS EROFS_FS_ZIP OVERLAY_FS
OVERLAY_FS_INDEX OVERLAY_FS_REDIRECT_DIR OVERLAY_FS_METACOPY OVERLAY_FS_XINO_AUTO BLK_DEV_INITRD BLK_DEV_LOOP INOTIFY_USER
FHANDLE SIGNALFD TIMERFD EPOLL AIO IO_URING AUTOFS_FS HUGETLBFS
NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS TIME_NS CGROUPS MEMCG BLK_CGROUP CGROUP_SCHED FAIR_GROUP_SCHED CFS_BANDWIDTH
CGROUP_PIDS CGROUP_FREEZER CPUSETS CGROUP_DEVICE CGROUP_CPUACCT CGROUP_HUGETLB BPF_SYSCALL CGROUP_BPF SECCOMP SECCOMP_FILTER
KEYS POSIX_MQUEUE SYSVIPC SECURITY_SELINUX SECURITY_APPARMOR SECURITY_LANDLOCK CGROUP_FAVOR_DYNMODS
NET UNIX PACKET INET IPV6 IP_ADVANCED_ROUTER IP_MULTIPLE_TABLES NETFILTER IP_NF_IPTABLES NF_CONNTRACK NF_NAT BRIDGE NET_SCH_FQ
MD BLK_DEV_DM DM_VERITY DM_INIT CRYPTO_SHA256 BINFMT_ELF BINFMT_SCRIPT BINFMT_MISC PTP_1588_CLOCK_KVM PSI LRU_GEN
VMGENID PAGE_REPORTING IKCONFIG_PROC
"""

OLDER_NAMES = {"MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO": "MEMORY_HOTPLUG_DEFAULT_ONLINE"}
"""What a symbol of the contract is called in a kernel source that does not have it by its name."""

every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)

HEAD = "# Why this fragment is there.\n"


def parsed(text: str, name: str = "a.conf") -> list[kconfig.Setting]:
    return kconfig.parse_fragment(HEAD + text, name)


def test_line_gives_symbol_value_reason_and_place() -> None:
    (setting,) = parsed("CONFIG_EROFS_FS=y                     # our root\n")
    assert setting == kconfig.Setting("EROFS_FS", "y", "our root", "a.conf:2")


@pytest.mark.parametrize(
    ("mark", "since", "before"),
    [("since 6.5", (6, 5), None), ("before 6.9", None, (6, 9)), ("since 6.5, before 6.12", (6, 5), (6, 12))],
)
def test_a_symbol_of_some_versions_says_which(mark: str, since: kconfig.Version | None, before: kconfig.Version | None) -> None:
    (setting,) = parsed(f"CONFIG_X=y # [{mark}] why\n")
    plain = kconfig.Setting("X", "y", "why", "a.conf:2")
    assert setting == kconfig.Setting("X", "y", "why", "a.conf:2", since or plain.since, before or plain.before)


@pytest.mark.parametrize(
    "mark", ["[]", "[6.5]", "[since 6]", "[since 6.5 before 6.9]", "[, before 6.9]", "[since 6.5,]", "[since 6.9, before 6.9]"]
)
def test_a_malformed_or_empty_range_of_versions_is_refused(mark: str) -> None:
    with pytest.raises(InnkeeperError, match=r"a\.conf:2: not of the form \[since VERSION, before VERSION\] reason"):
        parsed(f"CONFIG_X=y # {mark} why\n")


def test_a_range_of_versions_without_a_reason_is_refused() -> None:
    with pytest.raises(InnkeeperError, match="not of the form"):
        parsed("CONFIG_X=y # [since 6.5]\n")


def test_a_version_sees_its_own_lines_and_its_own_duplicates_only(tmp_path: Path) -> None:
    (tmp_path / "vax").mkdir()
    (tmp_path / "a.conf").write_text(f"{HEAD}CONFIG_X=1 # [before 6.5] why\nCONFIG_Y=y # [since 6.5] why\n")
    (tmp_path / "vax" / "b.conf").write_text(f"{HEAD}CONFIG_X=2 # [since 6.4] why\n")
    found = {version: kconfig.read_fragments(tmp_path, "vax", version) for version in ((6, 3), (6, 12))}
    assert [kconfig.as_config(settings) for settings in found.values()] == ["CONFIG_X=1\n", "CONFIG_X=2\nCONFIG_Y=y\n"]
    with pytest.raises(InnkeeperError, match="conflict: CONFIG_X=1"):
        kconfig.read_fragments(tmp_path, "vax", (6, 4))


@pytest.mark.parametrize("value", ["y", "n", "64", "-1", "0x1000", '"landlock,apparmor"', '""', '"with # inside"'])
def test_values(value: str) -> None:
    assert [setting.value for setting in parsed(f"CONFIG_X={value} # why\n")] == [value]


@pytest.mark.parametrize("line", ["CONFIG_X=y", "CONFIG_X=y #", "CONFIG_X=y  #  "])
def test_symbol_without_reason_is_refused(line: str) -> None:
    with pytest.raises(InnkeeperError, match=r"a\.conf:2: (CONFIG_X has no reason|not of the form)"):
        parsed(line)


@pytest.mark.parametrize("line", ["X=y # why", "CONFIG_X=m # no modules", "CONFIG_X # why", "# CONFIG_X is not set\nCONFIG_Y=yes # why"])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(InnkeeperError, match="not of the form"):
        parsed(line)


def test_fragment_without_opening_comment_is_refused() -> None:
    with pytest.raises(InnkeeperError, match=r"a\.conf:1: a fragment opens with a comment"):
        kconfig.parse_fragment("CONFIG_X=y # why\n", "a.conf")


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(InnkeeperError) as caught:
        parsed("CONFIG_X=y\nnonsense\n")
    assert "a.conf:2" in caught.value.message
    assert "a.conf:3" in caught.value.message


def test_duplicate_and_conflict_name_both_places() -> None:
    first = parsed("CONFIG_X=y # why\nCONFIG_Y=1 # why\n")
    with pytest.raises(InnkeeperError) as caught:
        kconfig.merge([first, parsed("CONFIG_X=y # why\nCONFIG_Y=2 # why\n", "b.conf")])
    assert "duplicate: CONFIG_X=y (a.conf:2) and =y (b.conf:2)" in caught.value.message
    assert "conflict: CONFIG_Y=1 (a.conf:3) and =2 (b.conf:3)" in caught.value.message


def test_duplicate_within_one_fragment_is_refused() -> None:
    with pytest.raises(InnkeeperError, match="duplicate: CONFIG_X"):
        kconfig.merge([parsed("CONFIG_X=y # why\nCONFIG_X=y # why\n")])


def test_merged_configuration_does_not_depend_on_order_or_reasons() -> None:
    one, other = parsed("CONFIG_A=y # why\n"), parsed("CONFIG_B=2 # why\n", "b.conf")
    again = parsed("CONFIG_A=y # said better\n", "c.conf")
    assert kconfig.as_config(kconfig.merge([one, other])) == kconfig.as_config(kconfig.merge([other, again])) == "CONFIG_A=y\nCONFIG_B=2\n"


def test_what_did_not_survive_is_named_with_wanted_and_got() -> None:
    settings = kconfig.merge([parsed('CONFIG_A=y # why\nCONFIG_B=4 # why\nCONFIG_C=n # why\nCONFIG_D="x" # why\nCONFIG_E=n # why\n')])
    config = kconfig.parse_config('# CONFIG_A is not set\nCONFIG_B=8\nCONFIG_C=y\nCONFIG_D="x"\nCONFIG_OTHER=y\n')
    assert [(str(lost.setting.symbol), lost.setting.value, lost.got) for lost in kconfig.lost(settings, config)] == [
        ("A", "y", "n"),
        ("B", "4", "8"),
        ("C", "n", "y"),
    ]
    with pytest.raises(InnkeeperError, match=r"CONFIG_B: wanted 4, got 8 \(a\.conf:3\)"):
        kconfig.check(settings, config)


def test_everything_survived() -> None:
    settings = kconfig.merge([parsed("CONFIG_A=y # why\n")])
    assert kconfig.lost(settings, {"A": "y"}) == []
    kconfig.check(settings, {"A": "y"})


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(InnkeeperError, match="no kernel configuration fragments for vax"):
        kconfig.read_fragments(FRAGMENTS, "vax", (6, 12))


@every_source
def test_our_fragments_have_every_symbol_of_the_contract(source: Source) -> None:
    settings = kconfig.read_fragments(FRAGMENTS, "x86_64", source.series)
    found = {name for name in CONTRACT.split() if name in settings or OLDER_NAMES.get(name) in settings}
    assert set(CONTRACT.split()) - found == set()
    assert {settings[name].value for name in found & settings.keys()} == {"y"}


@every_source
def test_our_fragments_build_in_no_module_and_open_no_way_around_the_agent(source: Source) -> None:
    settings = kconfig.read_fragments(FRAGMENTS, "x86_64", source.series)
    assert not {"MODULES", "KEXEC", "DEVMEM", "CHECKPOINT_RESTORE", "VSOCKETS_LOOPBACK", "CGROUP_DEBUG"} & settings.keys()


def test_each_line_counts_for_a_kernel_source_and_each_range_leaves_one_out() -> None:
    """A source that is dropped takes its lines along."""
    series = [source.series for source in SOURCES.values()]
    lines = [setting for path in FRAGMENTS.rglob("*.conf") for setting in kconfig.parse_fragment(path.read_text(), path.name)]
    counts = {line: [line.since <= version < line.before for version in series] for line in lines}
    assert [line.where for line in lines if not any(counts[line])] == []
    ranged = [line for line in lines if (line.since, line.before) != (kconfig.ALL_SINCE, kconfig.ALL_BEFORE)]
    assert ranged and [line.where for line in ranged if all(counts[line])] == []


def test_readme_names_every_fragment() -> None:
    readme = (FRAGMENTS / "README.md").read_text()
    assert [path.name for path in FRAGMENTS.rglob("*.conf") if f"| {path.relative_to(FRAGMENTS)} |" not in readme] == []
