"""The steps of PID 1's first second, in namespaces and a root directory of their own, so that this machine does not see them."""

import codecs
import ctypes
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import early_boot
from agent.linux import mount as m
from tests.forked import CLONE_NEWNET, CLONE_NEWNS, forked
from tests.needs import needs
from tests.root.container_helpers import cgroup2

pytestmark = [pytest.mark.root, needs("cgroup2")]

CLONE_NEWUTS, CLONE_NEWCGROUP = 0x04000000, 0x02000000
ALL = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS
FLAGS = {
    m.MOUNT_ATTR_NOSUID: "nosuid",
    m.MOUNT_ATTR_NODEV: "nodev",
    m.MOUNT_ATTR_NOEXEC: "noexec",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image's root: some of the mount points, and the file that names the host."""
    for name in ("proc", "sys", "dev", "run", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/hostname").write_text("guest\n")
    return tmp_path


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group; what is in it and below must be empty when the test has ended."""
    path = cgroup2() / f"innkeeper-boot-{os.getpid()}"
    path.mkdir()
    yield path
    if (path / early_boot.AGENT_CGROUP).exists():
        (path / early_boot.AGENT_CGROUP).rmdir()
    path.rmdir()


def own_dev() -> None:
    """There is one devtmpfs, the machine's: what is changed in it would be changed for everybody."""
    early_boot.MOUNTS = tuple(("/dev", b"tmpfs", (), row[3]) if row[0] == "/dev" else row for row in early_boot.MOUNTS)


def inside(root: Path, body: Callable[[], object], group: Path | None = None) -> None:
    """Run `body` with `root` as the root directory; with `group` that is the root of the control groups.

    A control group namespace it is in any case: a mount of cgroup2 in the machine's own changes the hierarchy's options for everybody.
    """

    def child() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text("0")
        own_dev()
        codecs.lookup("ascii")  # nothing can be imported from in there
        assert ctypes.CDLL(None).unshare(CLONE_NEWCGROUP) == 0
        os.chroot(root)
        os.chdir("/")
        body()

    forked(child, unshare=ALL)


def mounted() -> dict[str, tuple[str, set[str]]]:
    """Target -> (file system, flags), from /proc/self/mountinfo."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {fields[4]: (fields[fields.index("-") + 1], set(fields[5].split(","))) for fields in lines}


def test_the_mount_table(root: Path) -> None:
    def body() -> None:
        early_boot.mount_all()
        table = mounted()
        for target, filesystem, _, attributes in early_boot.MOUNTS:
            kind, flags = table[target]
            assert kind == filesystem.decode()
            assert {name for bit, name in FLAGS.items() if attributes & bit} == flags & set(FLAGS.values()), target
        assert os.stat("/dev/shm").st_mode & 0o7777 == 0o1777
        assert os.stat("/tmp").st_mode & 0o7777 == 0o1777
        assert os.stat("/run").st_mode & 0o7777 == 0o755
        assert os.path.exists("/dev/pts/ptmx")
        assert os.path.exists("/proc/self/stat")

    inside(root, body)


def test_mounting_twice_changes_nothing(root: Path) -> None:
    """The kernel has mounted /dev already when PID 1 begins."""

    def body() -> None:
        early_boot.mount_all()
        Path("/run/mark").write_text("")
        before = Path("/proc/self/mountinfo").read_text()
        early_boot.mount_all()
        assert Path("/proc/self/mountinfo").read_text() == before
        assert os.path.exists("/run/mark")

    inside(root, body)


def test_a_target_that_is_missing_on_a_read_only_root_is_named(root: Path) -> None:
    def body() -> None:
        m.set_attributes(fd := m.open_tree(-100, "/", m.OPEN_TREE_CLONE), set_=m.MOUNT_ATTR_RDONLY)
        m.move_mount_path(fd, "/")
        os.fchdir(fd)
        os.chroot(".")
        with pytest.raises(OSError, match="/tmp"):
            early_boot.mount_all()

    inside(root, body)


@pytest.mark.parametrize("filesystem", [b"tmpfs", b"ramfs"])
def test_a_root_out_of_an_initrd_is_sealed(tmp_path: Path, filesystem: bytes) -> None:
    def child() -> None:
        m.move_mount_path(m.new_mount(filesystem, ()), str(tmp_path))
        (tmp_path / "new").mkdir()
        (tmp_path / "file").write_text("old")
        below = os.open(tmp_path, os.O_PATH)
        os.chroot(tmp_path)
        os.chdir("/")
        early_boot.leave_initramfs()
        assert Path("/file").read_text() == "old"
        with pytest.raises(OSError, match="Read-only"):
            Path("/file").write_text("new")
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("more", dir_fd=below)
        m.move_mount_path(m.new_mount(b"tmpfs", ()), "/new")
        os.chdir("/new")
        m.pivot_root(".", ".")
        m.umount2(".", m.MNT_DETACH)
        assert os.listdir("/") == []

    forked(child, unshare=CLONE_NEWNS)


def test_a_root_of_any_other_kind_is_left_alone(tmp_path: Path) -> None:
    def child() -> None:
        m.move_mount_path(m.new_mount(b"proc", ()), str(tmp_path))
        os.chroot(tmp_path)
        os.chdir("/")
        before = Path("/self/mountinfo").read_text()
        early_boot.leave_initramfs()
        assert Path("/self/mountinfo").read_text() == before

    forked(child, unshare=CLONE_NEWNS)


def test_device_links(root: Path) -> None:
    def body() -> None:
        early_boot.mount_all()
        Path("/dev/ptmx").write_text("the kernel's own, in a guest")
        for _ in range(2):
            early_boot.link_devices()
            assert {target: os.readlink(target) for _, target in early_boot.DEVICE_LINKS} == {
                "/dev/fd": "/proc/self/fd",
                "/dev/stdin": "/proc/self/fd/0",
                "/dev/stdout": "/proc/self/fd/1",
                "/dev/stderr": "/proc/self/fd/2",
                "/dev/ptmx": "pts/ptmx",
            }
        master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        assert stat.S_ISCHR(os.fstat(master).st_mode)
        assert sorted(os.listdir("/dev/pts")) == ["0", "ptmx"]

    inside(root, body)


def test_links_that_cannot_be_made_are_no_reason_to_stop(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        os.rmdir("/dev")
        early_boot.link_devices()

    inside(root, body)
    assert capfd.readouterr().err.count('"level":"WARN"') == len(early_boot.DEVICE_LINKS)


def test_control_groups(group: Path) -> None:
    def body() -> None:
        early_boot.prepare_cgroups(str(group))
        own = group / early_boot.AGENT_CGROUP
        assert (own / "cgroup.procs").read_text().split() == [str(os.getpid())]
        assert (group / "cgroup.procs").read_text() == ""
        offered = (group / "cgroup.controllers").read_text().split()
        assert (group / "cgroup.subtree_control").read_text().split() == offered
        early_boot.prepare_cgroups(str(group))

    forked(body)


def test_limits(capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        early_boot.LIMITS = ((resource.RLIMIT_CORE, 7, 5), (resource.RLIMIT_NOFILE, 300, hard), (resource.RLIMIT_CORE, 0, 4096))
        early_boot.raise_limits()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (300, hard)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 4096)

    forked(body)
    assert capfd.readouterr().err.count("limit 4: ") == 1, "what cannot be set is logged, the rest is set"


@pytest.mark.parametrize(("content", "name"), [(b"box\n", "box"), (b"", "localhost"), (b"\xff\n", "localhost"), (None, "localhost")])
def test_host_name(root: Path, content: bytes | None, name: str) -> None:
    path = root / "etc/hostname"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    def body() -> None:
        early_boot.name_host()
        assert socket.gethostname() == name

    inside(root, body)


def test_entropy_is_there_on_a_machine_that_runs(capfd: pytest.CaptureFixture[str]) -> None:
    early_boot.ensure_entropy()
    assert capfd.readouterr().err == ""


def test_all_of_it_in_order(root: Path, group: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        early_boot.boot()
        assert set(mounted()) >= {target for target, *_ in early_boot.MOUNTS}
        assert Path("/proc/self/cgroup").read_text().splitlines()[-1] == f"0::/{early_boot.AGENT_CGROUP}"
        assert socket.gethostname() == "guest"
        assert os.environ["PATH"] == early_boot.PATH
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
            client.connect(server.getsockname())

    inside(root, body, group)
    assert "ERRO" not in capfd.readouterr().err
