"""Containers beside each other and beside the agent: keys, processes, terminals, sockets, mounts."""

import pytest

from innkeeper.client import RpcError
from tests.escape.documents import EXEC, IDENTITIES, ROOT, USERNS, Document, bind, map_users, unfiltered
from tests.escape.target import READ, Target
from tests.escape.target_native import Native

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]

everyone = pytest.mark.parametrize("who", IDENTITIES)
both = pytest.mark.parametrize("who", [ROOT, USERNS])
MARK = "0wned-by-a-test"


@pytest.mark.escape("E26")
@everyone
def test_keys_are_denied_by_the_profile(target: Target, who: str) -> None:
    report = target.attack(who, "add-key", "secret", "+", "read-key", "1")
    assert set(report.of("add_key").values()) == {"EPERM"}
    assert {*report.of("KEYCTL_READ").values(), *report.of("request_key").values()} == {"EPERM"}


@pytest.mark.escape("E26")
@both
def test_a_key_of_one_container_is_not_anothers(target: Target, who: str) -> None:
    """Without a filter: what the session keyring of its own keeps apart. Same user outside, same numbers."""
    owner = target.create(unfiltered(target.document("add-key", "secret", who=who)))
    try:
        target.agent.start_container(owner)
        serials = [answer.value for answer in target.first_answers(owner, 2) if answer.answer == "ok"]
        assert serials, "a kernel without keys has nothing to test"
        report = target.attack(who, "read-key", *serials, "+", "read", "/proc/keys", change=unfiltered)
    finally:
        target.agent.remove_container(owner)
    assert set(report.of("KEYCTL_READ").values()) <= {"EACCES", "ENOKEY", "EPERM"}
    assert "ok" not in {*report.of("KEYCTL_LINK").values(), *report.of("KEYCTL_SETPERM").values(), *report.of("request_key").values()}
    assert "secret" not in repr(report.values("KEYCTL_READ"))
    assert report.values("read")["/proc/keys"] == ""


@pytest.mark.escape("E27")
@pytest.mark.parametrize("who", [ROOT, USERNS, EXEC])
def test_processes_outside_cannot_be_read_where_their_proc_is_mounted(target: Target, who: str) -> None:
    report = target.attack(who, "look", "/volume", "+", "kill-all", change=lambda doc: doc["mounts"].append(bind("/proc", "/volume")))
    assert report.all("foreign") == []
    assert int(report.values("looked")["/volume"]) > 5
    assert int(report.values("denied")["/volume"]) > 5
    assert set(report.of("kill").values()) <= {"ok", "ESRCH"}


@pytest.mark.escape("E27")
def test_signals_reach_nobody_outside(target: Target) -> None:
    """Whatever numbers processes have outside, they have none inside."""
    with target.running(target.document("hold")) as id:
        numbers = [str(number) for number in (1, *range(3, 40), *[container.pid for container in target.agent.list_containers()])]
        report = target.exec(id, "kill-all", *numbers, user={"uid": 0, "gid": 0})
        assert {answer for pid, answer in report.of("kill").items() if pid not in ("1", "-1")} <= {"ESRCH"}
        assert target.agent.check() == 1
        assert target.exec(id, "identity").status == 0, "the first process ignores what it does not handle"


@pytest.mark.escape("E50")
@everyone
def test_nothing_inside_signals_the_agent(target: Target, who: str) -> None:
    report = target.attack(who, "signals")
    assert report.values("getppid") == {"": "0"}
    assert report.of("pidfd_open")["parent"] == "EINVAL"
    assert {answer.on for answer in report.all("pidfd_send_signal")} <= {"1"}
    assert report.of("children") == {"": "ok"}
    assert target.agent.check() == 1


def terminal(doc: Document) -> None:
    """Give the document a terminal."""
    doc["process"]["terminal"] = True


@pytest.mark.escape("E28")
@everyone
@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "unfiltered"])
def test_what_is_typed_into_a_terminal_stays_in_it(target: Target, who: str, filtered: bool) -> None:
    """A line of text, which whoever owns the console would find there; a terminal echoes it to its own output."""
    doc = target.document("terminal", f"{MARK}\n", who=ROOT if who == EXEC else who)
    if not filtered:
        unfiltered(doc)
    if who == EXEC:
        doc["process"]["args"][1:] = ["hold"]
        with target.running(doc) as id:
            output = _typed(target, id, target.start_exec(id, "terminal", f"{MARK}\n", terminal=True))
    else:
        terminal(doc)
        id = target.create(doc)
        try:
            target.agent.start_container(id)
            output = _typed(target, id, id)
        finally:
            target.agent.remove_container(id)
    assert '"try": "open", "on": "/dev/tty1", "answer": "ENOENT"' in output
    assert MARK not in target.log()


def _typed(target: Target, id: str, exec_id: str) -> str:
    parts = []
    while data := target.agent.read_stdout(id, exec_id, READ):
        parts.append(data)
    assert target.agent.wait_process(id, exec_id, 60) == 0
    return b"".join(parts).decode(errors="replace")


@pytest.mark.escape("E29")
@everyone
@pytest.mark.parametrize("network", ["its own", "the guest's"])
def test_no_socket_can_be_reached_by_its_name(target: Target, who: str, network: str) -> None:
    """A container of a pod uses the guest's network, and with it would see abstract names."""

    def change(doc: Document) -> None:
        if network == "the guest's":
            doc["linux"]["namespaces"] = [entry for entry in doc["linux"]["namespaces"] if entry["type"] != "network"]

    report = target.attack(who, "unix", change=change)
    names = [answer.on for answer in report.all("connect")]
    assert report.of("names") == {"/proc/net/unix": "ok"}
    assert not [name for name in names if name.startswith("@")]
    assert set(report.of("connect").values() if names else set()) <= {"ENOENT", "ECONNREFUSED", "EACCES"}


VSOCK_PORTS = ["1:1024", "2:1024", "3:1024", "3:50051", "4294967295:1024"]


@pytest.mark.escape("E30")
@everyone
def test_vsock_is_denied_by_the_profile(target: Target, who: str) -> None:
    assert target.attack(who, "vsock", *VSOCK_PORTS).of("socket") == {"vsock": "EPERM"}


@pytest.mark.escape("E30")
def test_the_agent_answers_the_host_alone(target: Target) -> None:
    """Without a filter: whatever of the agent's ports can be reached from inside is closed before anything is read."""
    report = target.attack(ROOT, "vsock", *VSOCK_PORTS, change=unfiltered)
    assert "answered" not in report.values("connect").values()
    assert "silence" not in {report.values("connect")[port] for port in report.values("connect") if port.endswith(":1024")}


@pytest.mark.escape("E53")
@pytest.mark.parametrize("propagation", ["rprivate", "rslave", "rshared", "shared"])
def test_what_is_mounted_inside_appears_nowhere_outside(target: Target, propagation: str) -> None:
    """A container with every right mounts below its volume, its root and its /dev; the agent's mounts are looked at meanwhile."""
    share = target.outside / "shares" / f"propagates-{propagation}"
    (share / "inner").mkdir(parents=True)
    doc = target.all_capabilities(target.document("mount-tmpfs", "/volume/inner", "/volume", "/tmp", "/dev", "/etc", "+", "hold"))
    doc["mounts"].append(bind(target.inner(share), "/volume", propagation))
    doc["linux"]["rootfsPropagation"] = propagation
    before = target.holdings()
    with target.running(doc):
        mounts = [holding for holding in target.holdings() - before if holding.startswith("mount")]
        assert mounts == []
        assert list((share / "inner").iterdir()) == []


@pytest.mark.escape("E53", "E15")
def test_a_container_does_not_see_what_another_mounts(target: Target) -> None:
    """One with every right mounts over the other's root and volume, while the other starts, ever again."""
    root = target.make_root("mounted-over")
    share = target.outside / "shares" / "mounted-over"
    share.mkdir(parents=True)
    doc = target.all_capabilities(
        target.document("mount-tmpfs", *[f"/volume/{name}" for name in ("proc", "sys", "dev", "etc")], "+", "hold")
    )
    doc["mounts"].append(bind(target.inner(root), "/volume", "rshared"))
    doc["linux"]["rootfsPropagation"] = "rshared"
    with target.running(doc):
        victim = target.document("statfs", "/proc", "/sys", "+", "read", "/etc/passwd", root=root)
        for _ in range(target.rounds(40)):
            report = target.run(victim)
            assert report.values("statfs") == {"/proc": "9fa0", "/sys": "62656572"}
            assert "root:" in report.values("read")["/etc/passwd"]


@pytest.mark.escape("E15")
def test_settings_are_written_to_the_containers_own_procfs(target: Target) -> None:
    """With a directory of the neighbour's in the place where a procfs would be: sysctl, score and label go where they belong."""
    root = target.make_root("false-proc")
    (root / "proc/sys/net/ipv4").mkdir(parents=True)
    (root / "proc/sys/net/ipv4/ip_unprivileged_port_start").symlink_to("/proc/sys/kernel/core_pattern")
    doc = target.document("read", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/self/oom_score_adj", root=root)
    doc["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "77"}
    doc["process"]["oomScoreAdj"] = 77
    assert target.run(doc).values("read") == {"/proc/sys/net/ipv4/ip_unprivileged_port_start": "77\n", "/proc/self/oom_score_adj": "77\n"}
    assert (root / "proc/sys/net/ipv4/ip_unprivileged_port_start").is_symlink()
    doc["process"]["apparmorProfile"] = "no-such-profile"
    with pytest.raises(RpcError, match=r"process\.apparmorProfile"):
        target.run(doc)


@pytest.mark.escape("E57")
def test_a_file_made_through_a_mapped_mount_belongs_to_the_mapped_id(here: Native) -> None:
    """Root of a user namespace writes to a volume that maps its ids back to those of the machine's."""
    share = here.outside / "shares" / "mapped-back"
    share.mkdir(parents=True)
    doc = map_users(here.document("make", "/volume"))
    doc["mounts"].append(bind(here.inner(share), "/volume", "idmap"))
    report = here.run(doc)
    assert set(report.of("create").values()) == {"ok"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in share.iterdir()} == {(0, 0)}
