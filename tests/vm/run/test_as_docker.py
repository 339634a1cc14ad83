"""What an engine puts into a container, beside docker: files, mounts, users, limits and settings. Rows of docs/compatibility.md."""

import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.image_helpers import ARCHITECTURE, Layout, busybox_root, file, layer, tar
from tests.vm.command import detached, innkeeper, succeed

pytestmark = pytest.mark.vm

VOLUMES = 28
WILD = """
echo env $(env | grep -c ALONE) $AFTER
echo who $(id -u) $(id -g) $(id -G)
echo home $HOME in $(pwd)
echo hostname $(hostname) $(cat /etc/hostname)
echo hosts $(grep wombat /etc/hosts)
echo added $(grep -w db /etc/hosts) $(grep -w gate /etc/hosts)
echo resolv $(cat /etc/resolv.conf)
echo link $(readlink /etc/resolv.conf) $(cat /run/systemd/resolve/stub-resolv.conf | head -n 1)
echo zone $(cat /etc/localtime)
echo mtab $(readlink /etc/mtab) $(grep -c ' / ' /etc/mtab)
echo modes $(stat -L -c %a:%u /run /new /mode /tmp /dev/shm /etc/hosts /etc/hostname /etc/resolv.conf)
echo run $(grep ' /run ' /proc/mounts | tr , ' ' | cut -d' ' -f3-7)
echo shm $(df -k /dev/shm | tail -n 1 | awk '{print $2}')
echo dev $(for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done)
echo nofile $(ulimit -Sn) $(ulimit -Hn)
echo limits $(awk '/stack|core|processes|locked/ {print $(NF-2), $(NF-1)}' /proc/self/limits)
echo ports $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range /proc/sys/net/core/somaxconn)
timeout 2 nc -l -p 80 </dev/null; echo listen $?
echo volumes $(cat /m/*/f)
echo read-only $(for n in 00 13 27; do touch /m/$n/x 2>/dev/null || echo $n; done)
echo kept $(cat /kept)
echo dockerenv $(ls -a / | grep -c dockerenv)
"""


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image as a distribution's root is made into one: dangling links, an odd Env, an empty layer, attributes of macOS."""
    links = {"etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf", "etc/localtime": "/usr/share/zoneinfo/Etc/UTC"}
    odd = {"SCHILY.xattr.com.apple.provenance": "\x01\x02", "SCHILY.xattr.user.kept": "yes"}
    locks = file("run/lock", type=tarfile.DIRTYPE, mode=0o1775, uid=5, gid=29)
    layers = [
        layer(tar([*busybox_root(), *[file(name, type=tarfile.SYMTYPE, linkname=to) for name, to in links.items()]]), "gzip"),
        layer(b""),
        layer(tar([file("kept", b"still here", pax_headers=odd), locks]), "zstd-frames"),
    ]
    config: dict[str, Any] = {"Env": ["PATH=/bin", "ALONE", "AFTER=1"], "User": "guest", "WorkingDir": "srv/made"}
    config |= {"Cmd": ["sh"], "Entrypoint": [""], "Volumes": {"/run/own": {}}}
    layout = Layout()
    made = layout.add_image(layers, {"os": "linux", "architecture": ARCHITECTURE}, config)
    return layout.save(tmp_path_factory.mktemp("wild") / "image.tar", made)


@pytest.fixture(scope="module")
def answers(start: str, wild: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the script says in a container of that image, by the first word of each line."""
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "zone").write_text("the-zone\n")
    options = ["--hostname", "wombat.example.test", "--add-host", "db:10.9.9.9", "--add-host", "gate:host-gateway"]
    options += ["--dns", "10.0.2.3", "--dns-search", "example.test", "--dns-option", "ndots:2", "--group-add", "audio", "--group-add", "77"]
    options += ["--tmpfs", "/run:size=1m", "--tmpfs", "/new", "--tmpfs", "/mode:mode=700,uid=1000,exec", "--shm-size", "8m"]
    options += ["--sysctl", "net.core.somaxconn=99", "-v", f"{folder}/zone:/etc/localtime:ro"]
    for number in range(VOLUMES):
        (folder / str(number)).mkdir()
        (folder / str(number) / "f").write_text(f"{number}\n")
        options += ["-v", f"{folder}/{number}:/m/{number:02}" + (":ro" if number != 13 else "")]
    (folder / "13").chmod(0o777)
    lines = succeed("run", "--rm", *options, wild, "sh", "-c", WILD)
    return dict(line.partition(" ")[::2] for line in lines.splitlines())


def test_environment_and_users(answers: dict[str, str]) -> None:
    assert answers["env"] == "0 1"
    assert answers["who"] == "1000 1000 1000 29 77"
    assert answers["home"] == "/home/guest in /srv/made"
    assert answers["kept"] == "still here"


def test_names_and_resolver(answers: dict[str, str]) -> None:
    assert answers["hostname"] == "wombat.example.test wombat.example.test"
    assert answers["hosts"] == "10.0.2.15 wombat.example.test wombat"
    assert answers["added"] == "10.9.9.9 db 10.0.2.2 gate"
    assert answers["resolv"] == "nameserver 10.0.2.3 search example.test options ndots:2"


def test_files_are_mounted_through_dangling_links(answers: dict[str, str]) -> None:
    assert answers["link"] == "../run/systemd/resolve/stub-resolv.conf nameserver 10.0.2.3"
    assert answers["zone"] == "the-zone"


def test_mounts_and_their_modes(answers: dict[str, str]) -> None:
    """A tmpfs has the mode of the folder that it covers, and 1777 where there was none; docker's options come first."""
    assert answers["modes"] == "755:0 1777:0 700:1000 1777:0 1777:0 644:0 644:0 644:0"
    assert answers["run"].split()[:1] == ["tmpfs"]
    assert {"nosuid", "nodev", "noexec"} <= set(answers["run"].split())
    assert answers["shm"] == "8192"
    assert answers["dev"] == "/proc/self/fd /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 pts/ptmx"
    assert answers["mtab"] == "/proc/mounts 1"
    assert answers["dockerenv"] == "0"


def test_limits_and_settings(answers: dict[str, str]) -> None:
    assert answers["nofile"] == "1024 524288"
    # stack, core, processes, locked memory; each soft and hard
    assert answers["limits"] == "8388608 unlimited 0 unlimited unlimited unlimited 8388608 8388608"
    assert answers["ports"] == "0 0 2147483647 99"
    assert answers["listen"] == "143", "timeout(1) ended it: any user may bind port 80"


def test_many_volumes(answers: dict[str, str]) -> None:
    assert answers["volumes"].split() == [str(number) for number in range(VOLUMES)]
    assert answers["read-only"] == "00 27"


@pytest.fixture(scope="module")
def box(start: str, wild: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container in the background with a volume at /etc."""
    etc = tmp_path_factory.mktemp("etc")
    (etc / "marker").write_text("marker\n")
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nguest:x:1000:1000::/home/guest:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nextra:x:50:late\n")
    with detached(wild, "sleep", "600", options=["-u", "0", "--read-only", "-v", f"{etc}:/etc"]) as id:
        yield id


def test_our_files_lie_on_a_volume_at_etc(box: str) -> None:
    script = "cat /etc/marker; grep -c ^nameserver /etc/resolv.conf; grep -cw $(hostname) /etc/hosts; echo x >/etc/hosts || echo read-only"
    script += "; touch /run/own/x && echo writable; touch /run/x || echo read-only"
    assert succeed("exec", box, "sh", "-c", f"{script} 2>/dev/null").split() == ["marker", "1", "1", "read-only", "writable", "read-only"]


DEFAULT_MOUNTS = {
    "/proc": "proc rw nosuid nodev noexec",
    "/dev": "tmpfs rw nosuid size=65536k mode=755",
    "/dev/pts": "devpts rw nosuid noexec gid=5 mode=620 ptmxmode=666",
    "/dev/mqueue": "mqueue rw nosuid nodev noexec",
    "/dev/shm": "tmpfs rw nosuid nodev noexec size=65536k",
    "/sys": "sysfs ro nosuid nodev noexec",
    "/sys/fs/cgroup": "cgroup2 ro nosuid nodev noexec",
}
"""Place -> type and options, as docker's default specification has them."""
MODES = {
    "/proc": "555 0:0",
    "/dev": "755 0:0",
    "/dev/pts": "755 0:0",
    "/dev/mqueue": "1777 0:0",
    "/dev/shm": "1777 0:0",
    "/sys": "555 0:0",
    "/run": "755 0:0",
    "/run/lock": "1775 5:29",
    **{f"/dev/{name}": "666 0:0" for name in ("null", "zero", "full", "random", "urandom", "tty")},
}


def test_default_mounts(box: str) -> None:
    """Their types, options, modes and owners. Nothing is mounted at /run: the image's own folder is there."""
    mounts = {}
    for line in succeed("exec", box, "cat", "/proc/mounts").splitlines():
        _, place, kind, options = line.split()[:4]
        mounts[place] = {kind, *options.split(",")}
    assert {place: wanted for place, wanted in DEFAULT_MOUNTS.items() if not set(wanted.split()) <= mounts[place]} == {}, mounts
    assert not {"/run", "/run/lock", "/tmp"} & mounts.keys()
    shown = succeed("exec", box, "stat", "-c", "%n %a %u:%g", *MODES).splitlines()
    assert dict([line.split(" ", 1) for line in shown]) == MODES


def test_settings_of_the_whole_machine(box: str) -> None:
    """They are the guest kernel's own, not the host's, and root can read them only."""
    names = ("vm/max_map_count", "vm/overcommit_memory", "vm/swappiness", "kernel/pid_max", "fs/inotify/max_user_instances")
    paths = [f"/proc/sys/{name}" for name in names]
    assert succeed("exec", box, "cat", *paths).split() == ["65530", "0", "60", "32768", "128"]
    script = 'for path in "$@"; do (cat "$path" >"$path") 2>&1; done; true'
    said = succeed("exec", box, "sh", "-c", script, "sh", *paths).splitlines()
    assert ["Read-only file system" in line for line in said] == [True] * len(paths), said


def test_users_of_exec_are_those_of_now(box: str) -> None:
    """HOME is the account's; an account made since is found; a number needs none; a name without an account is refused."""
    succeed("exec", box, "sh", "-c", "echo late:x:2000:2001::/home/late:/bin/sh >>/etc/passwd")
    show = ("sh", "-c", "echo $HOME $(id -u):$(id -g) $(id -G)")
    flags = {
        "": "/root 0:0 0",
        "-u guest": "/home/guest 1000:1000 1000",
        "-u 1000:1000": "/home/guest 1000:1000 1000",
        "-u 4242": "/ 4242:0 0",
        "-u late": "/home/late 2000:2001 2001 50",
        "-u late:extra": "/home/late 2000:50 50",
        "-u guest -e HOME=/x": "/x 1000:1000 1000",
    }
    assert {flag: succeed("exec", *flag.split(), box, *show).strip() for flag in flags} == flags
    refused = innkeeper("exec", "-u", "nobody-here", box, "id")
    assert refused.returncode in (125, 126)
    assert b"user 'nobody-here' is not in the container's /etc/passwd" in refused.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--sysctl", "vm.swappiness=1"), b"--sysctl vm.swappiness"),
        (("--hostname", "x" * 65), b"--hostname"),
        (("--group-add", "nogroup-here"), b"group 'nogroup-here' is not in the container's /etc/group"),
        (("-u", "nobody-here"), b"user 'nobody-here' is not in the container's /etc/passwd"),
    ],
)
def test_refused_before_the_boot(options: tuple[str, ...], why: bytes, wild: str) -> None:
    done = innkeeper("run", "--rm", *options, wild, "true")
    assert done.returncode == 125
    assert why in done.stderr
