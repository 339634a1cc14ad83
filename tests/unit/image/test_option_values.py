"""docker's flag syntaxes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.image import option_values
from innkeeper.image.run_options import Port, RunOptions, Tmpfs, Ulimit, Volume


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6291456", 6 << 20),
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("1.5G", 3 << 29),
        ("10240kb", 10 << 20),
        ("1GiB", 1 << 30),
        ("64 MB", 64 << 20),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert option_values.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "5m", "1x", "1e9", "0x10", "1mm", "nan"])
def test_bad_memory(text: str) -> None:
    with pytest.raises(InnkeeperError, match="--memory"):
        option_values.parse_memory(text)


def test_cpus() -> None:
    assert option_values.parse_cpus("1.5") == 1.5
    for text in ("0", "-1", "nan", "inf", "two", "0.001"):
        with pytest.raises(InnkeeperError, match="--cpus"):
            option_values.parse_cpus(text)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port("", 0, 80)]),
        ("8080:80", [Port("", 8080, 80)]),
        ("53:5353/udp", [Port("", 53, 5353, "udp")]),
        ("127.0.0.1:8080:80", [Port("127.0.0.1", 8080, 80)]),
        ("127.0.0.1::80", [Port("127.0.0.1", 0, 80)]),
        ("[::1]:8080:80", [Port("::1", 8080, 80)]),
        ("9000-9002:80-82/tcp", [Port("", 9000 + n, 80 + n) for n in range(3)]),
        ("7000-7001", [Port("", 0, 7000), Port("", 0, 7001)]),
    ],
)
def test_ports(text: str, ports: list[Port]) -> None:
    assert option_values.parse_ports(text) == ports


@pytest.mark.parametrize(
    "text",
    ["", "0:80", "80:0", "65536", "80:81-82", "82-80", "a:80", "80/sctp", "1.2.3:80:80", "300.1.1.1:1:1", "80:", "1:2:3:4", "-", "1-:2"],
)
def test_bad_ports(text: str) -> None:
    with pytest.raises(InnkeeperError, match="-p"):
        option_values.parse_ports(text)


def test_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert option_values.parse_volume(f"{tmp_path}:/srv/") == Volume(tmp_path, "/srv")
    assert option_values.parse_volume("./data:/a//b:ro") == Volume(tmp_path / "data", "/a/b", True)
    assert option_values.parse_volume(f"{tmp_path}:/x:rw,rslave") == Volume(tmp_path, "/x", False, "rslave")
    for bad in (
        "/srv",
        "name:/srv",
        f"{tmp_path}:srv",
        f"{tmp_path}:/",
        f"{tmp_path}:/x/..",
        f"{tmp_path}:/x:nocopy",
        "/no/such/file:/x",
        f"{tmp_path}:",
    ):
        with pytest.raises(InnkeeperError, match="-v"):
            option_values.parse_volume(bad)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024", Ulimit("nofile", 1024, 1024)),
        ("nproc=5:10", Ulimit("nproc", 5, 10)),
        ("core=-1", Ulimit("core", -1, -1)),
        ("core=0:-1", Ulimit("core", 0, -1)),
    ],
)
def test_ulimits(text: str, limit: Ulimit) -> None:
    assert option_values.parse_ulimit(text) == limit


@pytest.mark.parametrize("text", ["nofile", "nofile=", "files=1", "nofile=10:5", "nofile=-1:5", "nofile=-2", "nofile=1:2:3", "NOFILE=1"])
def test_bad_ulimits(text: str) -> None:
    with pytest.raises(InnkeeperError, match="--ulimit"):
        option_values.parse_ulimit(text)


def test_tmpfs() -> None:
    assert option_values.parse_tmpfs("/run") == Tmpfs("/run", ("noexec", "nosuid", "nodev"))
    assert option_values.parse_tmpfs("/run:size=64m,mode=1777,exec").options[-3:] == ("size=64m", "mode=1777", "exec")
    for bad in ("run", "/", "/run:bind", "/run:size", "/run:size=1;2", "/run:uid=$(id)"):
        with pytest.raises(InnkeeperError, match="--tmpfs"):
            option_values.parse_tmpfs(bad)


def test_security_options() -> None:
    options = RunOptions()
    option_values.parse_security_opts(
        ["seccomp=unconfined", "no-new-privileges:false", "apparmor=unconfined", "systempaths=unconfined"], options
    )
    assert (options.seccomp, options.no_new_privileges, options.apparmor, options.unmask) == ("unconfined", False, "unconfined", True)
    option_values.parse_security_opts(["no-new-privileges", "seccomp:/a=b.json", "label=disable"], options)
    assert options.no_new_privileges is True
    assert options.label == ["disable"]
    for bad in ("seccomp", "seccomp=", "no-new-privileges=maybe", "systempaths=all", "credentialspec=x", ""):
        with pytest.raises(InnkeeperError, match="--security-opt"):
            option_values.parse_security_opts([bad], options)


def test_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("\ufeff# comment\n\nA=1\n  B='quoted' # kept\nFROM_HOST\nUNSET\nWITH=equals=sign\r\n")
    entries = option_values.resolve_env(["A=2", "HOME", "EMPTY=", "MISSING"], [file], {"FROM_HOST": "x", "HOME": "/h"})
    assert entries == ["A=1", "B='quoted' # kept", "FROM_HOST=x", "WITH=equals=sign", "A=2", "HOME=/h", "EMPTY=", "MISSING"]
    for text in ("=x\n", "A B=1\n"):
        file.write_text(text)
        with pytest.raises(InnkeeperError, match="line 1"):
            option_values.read_env_file(file)
    with pytest.raises(InnkeeperError, match="No such file"):
        option_values.read_env_file(tmp_path / "none")
    with pytest.raises(InnkeeperError, match="-e"):
        option_values.resolve_env(["=x"], [], {})


def test_names_and_addresses() -> None:
    assert option_values.parse_hostname("wombat.example.test") == "wombat.example.test"
    assert option_values.parse_add_host("db:10.0.0.1") == ("db", "10.0.0.1")
    assert option_values.parse_add_host("db=[::1]") == ("db", "::1")
    assert option_values.parse_add_host("host.docker.internal:host-gateway") == ("host.docker.internal", "host-gateway")
    assert (option_values.parse_dns("::1"), option_values.parse_word("ndots:2", "--dns-option")) == ("::1", "ndots:2")
    bad: list[tuple[Callable[[str], object], str]] = [
        *[(option_values.parse_hostname, text) for text in ("", "a b", "a\n", "x" * 65, "a/b")],
        *[(option_values.parse_add_host, text) for text in ("db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4")],
        (option_values.parse_dns, "dns.example"),
        (lambda text: option_values.parse_word(text, "--dns-search"), "a b"),
    ]
    for check, text in bad:
        with pytest.raises(InnkeeperError, match="--"):
            check(text)


def test_sysctl() -> None:
    assert option_values.parse_sysctl("net.core.somaxconn=10") == ("net.core.somaxconn", "10")
    assert option_values.parse_sysctl("net/ipv4/conf/eth0.1/forwarding=") == ("net/ipv4/conf/eth0.1/forwarding", "")
    for name in ("kernel.shmmax", "fs.mqueue.msg_max", "kernel.domainname"):
        assert option_values.parse_sysctl(f"{name}=1") == (name, "1")
    for bad in ("x", "=1", "vm.swappiness=1", "kernel.core_pattern=|x", "kernel/hostname=x", "user.max_user_namespaces=1", "nets=1"):
        with pytest.raises(InnkeeperError, match="--sysctl"):
            option_values.parse_sysctl(bad)
