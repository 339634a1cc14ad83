"""The OCI document that `run` asks for, and its way into the protobuf message."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.container.spec.document import parse_spec
from agent.service.spec_from_proto import spec_document
from innkeeper.errors import InnkeeperError
from innkeeper.image import Image, ImageConfig, Port, RunOptions, Tmpfs, Ulimit, Volume, build_spec, defaults, to_proto
from innkeeper.image.config import parse_config
from innkeeper.image.run_plan import plan_run
from innkeeper.image.spec import INIT_SOURCE, command_line, select_capabilities
from innkeeper.image.volume_shares import SHARES_MAX, plan_volumes

DOCKER_MASK = 0xA80425FB
PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"


def make_image(**config: Any) -> Image:
    return Image("test", "sha256:" + "0" * 64, ImageConfig(**config), Path("image.erofs"), PASSWD, b"root:x:0:\nextra:x:7:app\n")


def build(image: Image | None = None, options: RunOptions | None = None, **more: Any) -> dict[str, Any]:
    options = options or RunOptions(args=["true"])
    more.setdefault("environ", {})
    return build_spec(image or make_image(), options, container_id="0123456789abcdef", root_path="/run/root", **more)


def capability_mask(names: list[str]) -> int:
    from innkeeper.image.defaults import ALL_CAPABILITIES

    return sum(1 << ALL_CAPABILITIES.index(name) for name in names)


def test_defaults_are_dockers() -> None:
    document = build()
    process, linux = document["process"], document["linux"]
    assert capability_mask(process["capabilities"]["bounding"]) == DOCKER_MASK
    assert process["capabilities"]["bounding"] == process["capabilities"]["effective"] == process["capabilities"]["permitted"]
    assert "ambient" not in process["capabilities"]
    assert "inheritable" not in process["capabilities"]
    assert process["noNewPrivileges"] is True
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert process["cwd"] == "/"
    assert process["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=0123456789ab"]
    assert document["hostname"] == "0123456789ab"
    assert [entry["type"] for entry in linux["namespaces"]] == ["pid", "ipc", "uts", "mount", "cgroup"]
    assert {"/proc/kcore", "/sys/firmware", "/proc/keys"} <= set(linux["maskedPaths"])
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    places = {entry["destination"]: entry for entry in document["mounts"]}
    assert "ro" in places["/sys"]["options"]
    assert "ro" in places["/sys/fs/cgroup"]["options"]
    assert "resources" not in linux
    assert linux["sysctl"] == {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524288}]


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        ({"entrypoint": ("/e",), "cmd": ("c",)}, {}, ["/e", "c"]),
        ({"entrypoint": ("/e",), "cmd": ("c",)}, {"args": ["x"]}, ["/e", "x"]),
        ({"cmd": ("c",)}, {"args": ["x", "y"]}, ["x", "y"]),
        ({"entrypoint": ("/e",), "cmd": ("c",)}, {"entrypoint": "/own"}, ["/own"]),
        ({"entrypoint": ("/e",), "cmd": ("c",)}, {"entrypoint": "", "args": ["x"]}, ["x"]),
    ],
)
def test_command_line(config: dict[str, Any], options: dict[str, Any], expected: list[str]) -> None:
    assert command_line(make_image(**config), RunOptions(**options)) == expected


def test_no_command() -> None:
    for options in (RunOptions(), RunOptions(entrypoint="")):
        with pytest.raises(InnkeeperError, match="no command"):
            command_line(make_image(), options)


def test_image_config_and_flags() -> None:
    image = make_image(env=("PATH=/x", "A=image", "GONE=1"), user="app", working_dir="srv")
    process = build(
        image, RunOptions(args=["t"], env=["A=flag", "HOST_ONE", "GONE"], tty=True, terminal_size=(24, 80)), environ={"HOST_ONE": "1"}
    )["process"]
    assert process["env"] == ["PATH=/x", "HOSTNAME=0123456789ab", "TERM=xterm", "A=flag", "HOST_ONE=1"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 7]}
    assert process["cwd"] == "/srv"
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 24, "width": 80}
    process = build(image, RunOptions(args=["t"], user="0:5", workdir="/w/../v"))["process"]
    assert process["user"] == {"uid": 0, "gid": 5, "additionalGids": [5]}
    assert process["cwd"] == "/v"
    with pytest.raises(InnkeeperError, match="-w rel"):
        build(image, RunOptions(args=["t"], workdir="rel"))


def test_resources_and_limits() -> None:
    options = RunOptions(
        args=["t"], memory=64 << 20, cpus=1.5, pids_limit=10, ulimits=[Ulimit("nofile", 5, -1)], sysctls={"net.x": "1"}, read_only=True
    )
    document = build(options=options)
    assert document["linux"]["resources"] == {
        "memory": {"limit": 64 << 20},
        "cpu": {"period": 100000, "quota": 150000},
        "pids": {"limit": 10},
    }
    assert document["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 2**64 - 1}]
    assert document["linux"]["sysctl"] == {**defaults.SYSCTLS, "net.x": "1"}
    changed = build(options=RunOptions(args=["t"], sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"}))
    assert changed["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "1024"
    assert document["root"] == {"path": "/run/root", "readonly": True}


def test_capability_flags_as_docker() -> None:
    assert select_capabilities([], ["ALL"]) == []
    assert select_capabilities(["net_admin"], ["all"]) == ["CAP_NET_ADMIN"]
    assert "CAP_MKNOD" not in select_capabilities(["ALL"], ["CAP_MKNOD"])
    assert len(select_capabilities(["ALL"], ["MKNOD"])) == 40
    assert capability_mask(select_capabilities(["SYS_ADMIN"], ["CHOWN"])) == (DOCKER_MASK | 1 << 21) & ~1
    with pytest.raises(InnkeeperError, match="--cap-add FLY"):
        select_capabilities(["FLY"], [])


def test_mounts_in_order_and_replaced(tmp_path: Path) -> None:
    options = RunOptions(
        args=["t"], init=True, volumes=[Volume(tmp_path, "/a/b/c", True), Volume(tmp_path, "/a")], tmpfs=[Tmpfs("/dev/shm", ("size=1m",))]
    )
    document = build(options=options, volume_sources=["/v/0", "/v/1"], files={"/etc/hosts": "/h"})
    mounts = document["mounts"]
    places = [entry["destination"] for entry in mounts]
    assert places.index("/a") < places.index("/etc/hosts") < places.index("/a/b/c")
    assert places.count("/dev/shm") == 1
    assert mounts[places.index("/dev/shm")]["options"] == ["size=1m"]
    assert mounts[places.index("/a/b/c")] == {
        "destination": "/a/b/c",
        "type": "bind",
        "source": "/v/0",
        "options": ["rbind", "rprivate", "ro"],
    }
    assert mounts[-1] == {"destination": "/sbin/docker-init", "type": "bind", "source": INIT_SOURCE, "options": ["bind", "ro"]}
    assert document["process"]["args"] == ["/sbin/docker-init", "--", "t"]
    twice = RunOptions(args=["t"], volumes=[Volume(tmp_path, "/a"), Volume(tmp_path, "/a")])
    with pytest.raises(InnkeeperError, match="duplicate mount point: /a"):
        build(options=twice, volume_sources=["/v/0", "/v/1"])


def test_unconfined() -> None:
    linux = build(options=RunOptions(args=["t"], seccomp="unconfined", unmask=True))["linux"]
    assert set(linux) == {"namespaces", "sysctl"}


def test_every_field_reaches_the_message() -> None:
    options = RunOptions(
        args=["t"],
        tty=True,
        terminal_size=(2, 3),
        memory=1 << 30,
        cpus=0.5,
        pids_limit=4,
        ulimits=[Ulimit("core", 0, 0)],
        sysctls={"net.a": "b"},
    )
    document = build(options=options)
    message = to_proto(document)
    assert message.Version == "1.1.0"
    assert message.Process.Args == ["t"]
    assert (message.Process.ConsoleSize.Height, message.Process.ConsoleSize.Width) == (2, 3)
    assert message.Process.User.AdditionalGids == [0]
    assert message.Process.NoNewPrivileges
    assert [limit.Type for limit in message.Process.Rlimits] == ["RLIMIT_NOFILE", "RLIMIT_CORE"]
    assert message.Linux.Resources.Memory.Limit == 1 << 30
    assert (message.Linux.Resources.CPU.Quota, message.Linux.Resources.CPU.Period) == (50000, 100000)
    assert message.Linux.Resources.Pids.Limit == 4
    assert message.Linux.Sysctl["net.a"] == "b"
    assert len(message.Linux.Seccomp.Syscalls) == len(document["linux"]["seccomp"]["syscalls"])
    assert [rule.errnoret for rule in message.Linux.Seccomp.Syscalls if "clone3" in rule.Names] == [38]
    assert [mount.destination for mount in message.Mounts] == [entry["destination"] for entry in document["mounts"]]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"process": {"user": {"umask": 18}}}, r"process\.user\.umask: cannot be sent"),
        ({"linux": {"seccomp": {"defaultErrnoRet": 38}}}, r"linux\.seccomp\.defaultErrnoRet: cannot be sent"),
        ({"linux": {"personality": {}}}, r"linux\.personality"),
        ({"domainname": "x"}, "domainname"),
        ({"mounts": [{"destination": "/a", "uidMappings": []}]}, r"mounts\[0\]\.uidMappings"),
        ({"process": {"args": ["a", 1]}}, r"process\.args\[1\]: not a string"),
        ({"process": {"args": ["\udcff"]}}, r"process\.args\[0\].*UTF-8"),
        ({"process": {"terminal": 1}}, "not true or false"),
        ({"process": {"user": {"uid": -1}}}, r"process\.user\.uid: -1 is not a number from 0"),
        ({"process": {"user": {"uid": True}}}, "not a number"),
        ({"linux": {"resources": {"memory": {"limit": 2**63}}}}, "not a number from"),
        ({"linux": {"resources": {"pids": {"limit": 0}}}}, "takes it for absent"),
        ({"linux": {"namespaces": {}}}, "not a list"),
        ({"linux": []}, "linux: not an object"),
    ],
)
def test_what_the_message_cannot_carry_is_refused_by_name(document: dict[str, Any], why: str) -> None:
    with pytest.raises(InnkeeperError, match=why):
        to_proto(document)


def test_plan_shares_each_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "link").symlink_to("file")
    volumes = [
        Volume(tmp_path, "/a"),
        Volume(file, "/b"),
        Volume(file, "/c", True),
        Volume(tmp_path, "/d"),
        Volume(tmp_path / "link", "/e"),
    ]
    shares, sources = plan_volumes(volumes)
    assert [(share.tag, dict(share.paths)) for share in shares] == [
        ("volume0", {(tmp_path, False): "0", (file, False): "1", (file, True): "2"}),
    ]
    base = "/run/kata-containers/sandbox/volumes/0"
    assert sources == [f"{base}/0", f"{base}/1/file", f"{base}/2/file", f"{base}/0", f"{base}/1/file"]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InnkeeperError, match="pipe"):
        plan_volumes([Volume(tmp_path / "pipe", "/p")])


def test_plan_of_a_run(tmp_path: Path) -> None:
    plan = plan_run(make_image(stop_signal="SIGQUIT"), RunOptions(args=["t"], volumes=[Volume(tmp_path, "/data", True)]), "box")
    assert plan.stop_signal == "SIGQUIT"
    assert [storage.driver for storage in plan.storages] == ["blk", "blk", "overlayfs", "virtio-fs"]
    assert list(plan.storages[3].options) == ["ro"]
    assert plan.storages[2].mount_point == "/run/kata-containers/box/rootfs" == plan.document["root"]["path"]  # type: ignore[index]
    to_proto(plan.document)


def test_volumes_of_the_image_stay_writable_on_a_read_only_root(tmp_path: Path) -> None:
    config = ImageConfig(cmd=("t",), volumes=("/data", "/new/", "/own", "/var/lib/linked"))
    folders = {"/data": "/data", "/new/": None, "/own": "/own", "/var/lib/linked": "/srv"}
    image = Image("test", "sha256:0", config, Path("x"), PASSWD, None, folders)
    plan = plan_run(image, RunOptions(read_only=True, volumes=[Volume(tmp_path, "/own")]), "box")
    mounts: Any = plan.document["mounts"]
    sources = {entry["destination"]: entry["source"] for entry in mounts if entry["type"] == "bind"}
    read_only = {entry["destination"] for entry in mounts if entry["type"] == "bind" and "ro" in entry["options"]}
    assert read_only == {"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"}
    base = "/run/kata-containers/sandbox/image-volumes"
    assert sources["/data"] == f"{base}/data"
    assert sources["/new"] == f"{base}/new"
    assert sources["/var/lib/linked"] == f"{base}/srv"  # never through a link of the image
    assert sources["/own"] == "/run/kata-containers/sandbox/volumes/0/0"
    storage = plan.storages[-1]
    assert storage.mount_point == base
    assert [option.rpartition("/")[2] for option in storage.driver_options] == ["volumes-upper", "volumes-work", "new"]
    assert len(plan_run(image, RunOptions(), "box").storages) == 3
    with pytest.raises(InnkeeperError, match="volume '/'"):
        plan_run(Image("t", "", ImageConfig(cmd=("t",), volumes=("/",)), Path("x"), None, None), RunOptions(read_only=True), "box")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tty": True, "terminal_size": (24, 80), "init": True, "user": "app", "read_only": True, "hostname": "box"},
        {"memory": 6 << 20, "cpus": 0.01, "pids_limit": 1, "ulimits": [Ulimit("core", 0, 0), Ulimit("nofile", 9, -1)]},
        {"sysctls": {"net.ipv4.ip_forward": "1"}, "tmpfs": [Tmpfs("/run", ("size=1m", "mode=755"))]},
        {"cap_add": ["ALL"], "seccomp": "unconfined", "unmask": True, "no_new_privileges": False},
        {"cap_drop": ["ALL"], "cap_add": ["NET_ADMIN"], "shm_size": 1 << 20},
    ],
)
def test_the_agent_understands_the_same(options: dict[str, Any]) -> None:
    """What arrives over the wire is what was meant, and nothing of it is refused."""
    document = build(options=RunOptions(args=["t"], **options), files={"/etc/hosts": "/h"})
    arrived: Any = spec_document(to_proto(document))
    network = frozenset({"net"})
    # A map of the message has no order.
    arrived["linux"]["sysctl"] = dict(sorted(arrived["linux"]["sysctl"].items()))
    document["linux"]["sysctl"] = dict(sorted(document["linux"]["sysctl"].items()))
    # The message has no way to say false, which is the same for a container's first process.
    if not document["process"]["noNewPrivileges"]:
        del document["process"]["noNewPrivileges"]
    assert parse_spec(arrived, network) == parse_spec(document, network)


def test_config_of_another_platform() -> None:
    with pytest.raises(InnkeeperError, match="windows/amd64"):
        parse_config({"os": "windows", "architecture": "amd64"})
    with pytest.raises(InnkeeperError, match="s390x"):
        parse_config({"os": "linux", "architecture": "s390x"})
    with pytest.raises(InnkeeperError, match="Cmd is not a list"):
        parse_config({"config": {"Cmd": {"a": "sh"}}})


def test_forms_of_a_command() -> None:
    """docker reads one string as a list of one, and an entrypoint of one empty word as none."""
    config = parse_config({"config": {"Cmd": "sh", "Entrypoint": [""]}})
    assert (config.cmd, config.entrypoint) == (("sh",), ())
    assert command_line(Image("t", "", config, Path("x"), None, None), RunOptions()) == ["sh"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ExposedPorts", {"80/tcp": {}}),
        ("Healthcheck", {"Test": ["CMD", "false"], "Interval": 1_000_000_000}),
        ("OnBuild", ["RUN false"]),
        ("Shell", ["/bin/false", "-c"]),
    ],
)
def test_fields_of_an_image_without_effect(name: str, value: object) -> None:
    """Neither the container's document nor the forwarded ports depend on them."""
    plain, other = (make_image_of({"Cmd": "sh"} | more) for more in ({}, {name: value}))
    assert build(other, RunOptions()) == build(plain, RunOptions())
    assert plan_run(other, RunOptions(), "box").forwards == ()


def test_publish_all_takes_a_free_port_for_what_the_image_exposes() -> None:
    image = make_image_of({"Cmd": "sh", "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8080": {}, "9000-9001/tcp": {}}})
    own = Port("127.0.0.1", 5300, 53, "udp")
    forwards = plan_run(image, RunOptions(publish_all=True, ports=[own]), "box").forwards
    assert set(forwards) == {own, *(Port("", 0, port) for port in (80, 8080, 9000, 9001))}
    assert plan_run(image, RunOptions(ports=[own]), "box").forwards == (own,)


@pytest.mark.parametrize("port", ["80/sctp", "0/tcp", "x", "22:80", "0.0.0.0:22:80/tcp"])
def test_an_exposed_port_that_cannot_be_published_is_refused_with_the_image(port: str) -> None:
    image = make_image_of({"Cmd": "sh", "ExposedPorts": {port: {}}})
    with pytest.raises(InnkeeperError, match=r"image .*, ExposedPorts"):
        plan_run(image, RunOptions(publish_all=True), "box")


def make_image_of(config: dict[str, object]) -> Image:
    return Image("test", "sha256:" + "0" * 64, parse_config({"config": config}), Path("image.erofs"), PASSWD, None)


def test_environment_of_an_image_as_docker_reads_it() -> None:
    """A name without a value takes what came before it away; an entry without a name, or empty, is none."""
    image = make_image(env=("A=1", "ALONE", "", "=x", "A", "B=2", "B=3", "PATH"))
    assert build(image, RunOptions(args=["t"]))["process"]["env"] == ["HOSTNAME=0123456789ab", "B=3"]
    with pytest.raises(InnkeeperError, match="NUL"):
        build(make_image(env=("A=\0",)), RunOptions(args=["t"]))


def test_home_is_left_to_the_guest_unless_somebody_sets_it() -> None:
    assert not [entry for entry in build()["process"]["env"] if entry.startswith("HOME=")]
    assert "HOME=/i" in build(make_image(env=("HOME=/i",)))["process"]["env"]
    assert "HOME=/f" in build(make_image(env=("HOME=/i",)), RunOptions(args=["t"], env=["HOME=/f"]))["process"]["env"]


def test_our_files_lie_on_volumes_above_them(tmp_path: Path) -> None:
    """docker sorts all mounts by their place, so that a volume at /etc does not hide /etc/hosts."""
    files = {f"/etc/{name}": f"/h/{name}" for name in ("resolv.conf", "hosts", "hostname")}
    options = RunOptions(args=["t"], volumes=[Volume(tmp_path, "/etc"), Volume(tmp_path, "/etc/hosts")], tmpfs=[Tmpfs("/run", ())])
    mounts = build(options=options, volume_sources=["/v/0", "/v/1"], files=files)["mounts"]
    places = [entry["destination"] for entry in mounts]
    assert places.index("/etc") < min(places.index(f"/etc/{name}") for name in ("resolv.conf", "hosts", "hostname"))
    assert [entry["source"] for entry in mounts if entry["destination"] == "/etc/hosts"] == ["/v/1"]


def test_a_volume_at_dev_takes_the_place_of_all_below_it(tmp_path: Path) -> None:
    options = RunOptions(args=["t"], volumes=[Volume(tmp_path, "/dev"), Volume(tmp_path, "/dev/own")])
    mounts = build(options=options, volume_sources=["/v/0", "/v/1"])["mounts"]
    assert [entry["destination"] for entry in mounts if entry["destination"].startswith("/dev")] == ["/dev", "/dev/own"]


def test_our_files_are_read_only_on_a_read_only_root() -> None:
    for read_only in (False, True):
        mounts = build(options=RunOptions(args=["t"], read_only=read_only), files={"/etc/hosts": "/h"})["mounts"]
        (found,) = [entry for entry in mounts if entry["destination"] == "/etc/hosts"]
        assert ("ro" in found["options"]) is read_only


def test_volumes_of_one_file_system_have_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = []
    for number in range(40):
        (tmp_path / str(number)).mkdir()
        volumes.append(Volume(tmp_path / str(number), f"/m/{number}", read_only=True))
    shares, sources = plan_volumes(volumes)
    assert (len(shares), len(set(sources))) == (1, 40)
    real = os.stat
    with_other_device = [Volume(tmp_path / str(number), f"/m/{number}") for number in range(SHARES_MAX + 1)]

    def stat_apart(self: Path, **more: Any) -> os.stat_result:
        """Each of the folders on a file system of its own."""
        found = list(real(self, **more))
        if self.parent == tmp_path:
            found[2] = 1000 + int(self.name)
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", stat_apart)
    shares, sources = plan_volumes(with_other_device[:-1])
    assert (len(shares), len(set(sources))) == (SHARES_MAX, SHARES_MAX)
    with pytest.raises(InnkeeperError, match="-v: the volumes are on 21 file systems"):
        plan_volumes(with_other_device)


def test_document_is_json() -> None:
    document = build()
    assert json.loads(json.dumps(document)) == document
