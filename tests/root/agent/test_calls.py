"""Calls about the guest, its volumes and what containers leave, on an agent outside of a guest."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from innkeeper.client import RpcError
from innkeeper.image import process_to_proto
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb.csi_pb2 import VolumeStatsResponse, VolumeUsage
from innkeeper.wire.pb.empty_pb2 import Empty
from innkeeper.wire.pb.guest_pb2 import StartShellRequest
from tests.needs import needs
from tests.root.agent_helpers import NativeAgent, native_agent, shim_document

pytestmark = [pytest.mark.root, needs("cgroup2", "busybox", "iptables-save", "module:prctl", "module:pyseccomp")]

EPHEMERAL = "/run/kata-containers/sandbox/ephemeral/cache"


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[NativeAgent]:
    with native_agent(tmp_path) as agent:
        yield agent


def memory(size: str, *options: str) -> pb.Storage:
    return pb.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=EPHEMERAL, options=[*options, f"size={size}"])


@pytest.mark.parametrize("method", ["MemAgentMemcgSet", "MemAgentCompactSet"])
def test_absent_by_name(guest: NativeAgent, method: str) -> None:
    request = {"MemAgentMemcgSet": pb.MemAgentMemcgConfig, "MemAgentCompactSet": pb.MemAgentCompactConfig}[method]()
    error = guest.refusal(method, request)
    assert error.code == status.UNIMPLEMENTED
    assert f"/grpc.AgentService/{method} is not supported: there is no mem-agent here" in error.message


def test_metrics(guest: NativeAgent) -> None:
    """The families of Kata's agent, in Prometheus' text format, with the figures of the kernel's files."""
    first = guest.call("GetMetrics", pb.GetMetricsRequest(), pb.Metrics).metrics
    text = guest.call("GetMetrics", pb.GetMetricsRequest(), pb.Metrics).metrics
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+')
    lines = text.splitlines()
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    agent = ["io_stat", "proc_stat", "proc_status", "scrape_count", "threads", "total_time", "total_vm", "total_rss"]
    of_guest = ["load", "tasks", "cpu_time", "vm_stat", "meminfo", "netdev_stat", "diskstat", "filesystem_bytes", "filesystem_inodes"]
    assert families == [*(f"kata_agent_{name}" for name in agent), *(f"kata_guest_{name}" for name in of_guest)]
    total = int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    assert f'kata_guest_meminfo{{item="mem_total"}} {total * 1024}' in lines
    assert "kata_agent_scrape_count 1" in first.splitlines()
    assert "kata_agent_scrape_count 2" in lines
    assert "kata_agent_threads 1" in lines
    assert 'kata_guest_netdev_stat{interface="lo",item="sent_bytes"} 0' in lines
    assert any(re.fullmatch(r'kata_guest_filesystem_bytes\{mount="/run",device="\w+",item="total"\} [1-9].*', line) for line in lines)
    for item in ("vmrss", "voluntary_ctxt_switches"):
        assert any(line.startswith(f'kata_agent_proc_status{{item="{item}"}} ') for line in lines)


def test_volume_stats(guest: NativeAgent) -> None:
    guest.sandbox(storages=[memory("1m")])
    answer = guest.call("GetVolumeStats", pb.VolumeStatsRequest(volume_guest_path=EPHEMERAL), VolumeStatsResponse)
    (guest.root / EPHEMERAL[1:] / "file").write_bytes(bytes(300_000))
    later = guest.call("GetVolumeStats", pb.VolumeStatsRequest(volume_guest_path=EPHEMERAL), VolumeStatsResponse)
    in_bytes, in_inodes = answer.usage
    assert (in_bytes.unit, in_bytes.total, in_bytes.used, in_bytes.available) == (VolumeUsage.BYTES, 1 << 20, 0, 1 << 20)
    assert in_inodes.unit == VolumeUsage.INODES
    assert later.usage[0].used == 303104
    assert later.usage[1].used == in_inodes.used + 1
    assert not answer.volume_condition.abnormal
    for path, reason in (("relative", "no plain absolute path"), ("/run/nothing-here", "No such file")):
        with pytest.raises(RpcError, match=reason):
            guest.call("GetVolumeStats", pb.VolumeStatsRequest(volume_guest_path=path), VolumeStatsResponse)


def test_update_of_memory(guest: NativeAgent) -> None:
    """A remount changes the size and keeps what is in the volume; all entries are checked before one is changed."""
    guest.sandbox(storages=[memory("64k", "fsgid=77")])
    place = guest.root / EPHEMERAL[1:]
    (place / "file").write_text("kept")
    guest.do("UpdateEphemeralMounts", pb.UpdateEphemeralMountsRequest())
    change = pb.UpdateEphemeralMountsRequest(storages=[memory("2m", "remount", "fsgid=99")])
    guest.do("UpdateEphemeralMounts", change)
    assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize == 2 << 20
    assert ((place / "file").read_text(), place.stat().st_gid) == ("kept", 77)
    for wrong, reason in (
        (pb.Storage(driver="blk", mount_point=EPHEMERAL), "only ephemeral"),
        (memory("1m"), "remount is missing"),
        (pb.Storage(driver="ephemeral", mount_point="/run", options=["remount", "loop"]), "loop"),
        (pb.Storage(driver="ephemeral", mount_point="/proc", options=["remount"]), "no tmpfs is mounted"),
    ):
        refused = guest.refusal("UpdateEphemeralMounts", pb.UpdateEphemeralMountsRequest(storages=[memory("8m", "remount"), wrong]))
        assert reason in refused.message
    assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize == 2 << 20


def test_resize_refused(guest: NativeAgent) -> None:
    guest.sandbox(storages=[memory("64k")])
    for path, size, reason in ((EPHEMERAL, 1 << 20, "is tmpfs; only ext4 and xfs grow"), ("/run/none", 1, "nothing is mounted")):
        assert reason in guest.refusal("ResizeVolume", pb.ResizeVolumeRequest(volume_guest_path=path, size=size)).message


def test_termination_log(guest: NativeAgent, container_root: Path, tmp_path: Path) -> None:
    """The file bound at the path that Kubernetes names, after the end as well; nothing else of the guest's can be read that way."""
    log = tmp_path / "termination"
    log.write_text("")
    spec = shim_document(container_root, "sh", "-c", "echo no disk left > /dev/end")
    spec["annotations"] = {"io.kubernetes.container.terminationMessagePath": "/dev/end"}
    spec["mounts"] = [*spec["mounts"], {"destination": "/dev/end", "type": "bind", "source": str(log), "options": ["rbind"]}]
    guest.sandbox()
    guest.start("c1", spec)
    guest.finish("c1")
    request = pb.GetDiagnosticDataRequest(log_type="termination_log", container_id="c1")
    assert guest.call("GetDiagnosticData", request, pb.GetDiagnosticDataResponse).data == "no disk left\n"
    log.unlink()
    log.symlink_to("/etc/hostname")
    assert guest.call("GetDiagnosticData", request, pb.GetDiagnosticDataResponse).data == ""
    assert "is not 'termination_log'" in guest.refusal("GetDiagnosticData", pb.GetDiagnosticDataRequest(log_type="shadow")).message
    unknown = guest.refusal("GetDiagnosticData", pb.GetDiagnosticDataRequest(log_type="termination_log", container_id="c2"))
    assert unknown.code == status.NOT_FOUND


def test_online(guest: NativeAgent) -> None:
    """All that is there is on already; what is not there is said to be missing after a while."""
    guest.do("OnlineCPUMem", pb.OnlineCPUMemRequest(nb_cpus=1, cpu_only=True))
    guest.do("OnlineCPUMem", pb.OnlineCPUMemRequest())
    many = guest.refusal("OnlineCPUMem", pb.OnlineCPUMemRequest(nb_cpus=4000, cpu_only=True))
    assert re.search(r"failed to online 4000 CPU\(s\): \d+ are", many.message)
    assert "more than a kernel can have" in guest.refusal("OnlineCPUMem", pb.OnlineCPUMemRequest(nb_cpus=1 << 31)).message


def test_stale_mounts(guest: NativeAgent) -> None:
    guest.sandbox()
    guest.do("RemoveStaleVirtiofsShareMounts", pb.RemoveStaleVirtiofsShareMountsRequest())
    assert "has not answered" not in guest.log


def test_end_of_the_sandbox(guest: NativeAgent) -> None:
    """A GetOOMEvent that waits ends with an error that has no text."""
    guest.sandbox()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(guest.call, "GetOOMEvent", pb.GetOOMEventRequest(), pb.OOMEvent)
        guest.agent.check()
        guest.agent.destroy_sandbox()
        with pytest.raises(RpcError) as caught:
            waiting.result(30)
    assert (caught.value.code, caught.value.message) == (status.INTERNAL, "")


def test_swap_refused(guest: NativeAgent) -> None:
    assert "PCIPath: is empty" in guest.refusal("AddSwap", pb.AddSwapRequest()).message
    assert "is no slot" in guest.refusal("AddSwap", pb.AddSwapRequest(PCIPath=[77])).message
    assert "no device node below /dev" in guest.refusal("AddSwapPath", pb.AddSwapPathRequest(path="/etc/passwd")).message


def test_iptables(guest: NativeAgent) -> None:
    """What is set is what is read back, for both families; a mistake in the text changes nothing."""
    for is_ipv6, source in ((False, "10.1.2.0/24"), (True, "fd00::/64")):
        rules = f"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -s {source} -j DROP\nCOMMIT\n"
        guest.call("SetIPTables", pb.SetIPTablesRequest(is_ipv6=is_ipv6, data=rules.encode()), pb.SetIPTablesResponse)
        wrong = guest.refusal("SetIPTables", pb.SetIPTablesRequest(is_ipv6=is_ipv6, data=b"*filter\n-A NOWHERE -j DROP\nCOMMIT\n"))
        assert "status" in wrong.message
        read = guest.call("GetIPTables", pb.GetIPTablesRequest(is_ipv6=is_ipv6), pb.GetIPTablesResponse).data.decode()
        assert f"-A INPUT -s {source} -j DROP" in read
        assert "NOWHERE" not in read
    assert "data: is empty" in guest.refusal("SetIPTables", pb.SetIPTablesRequest()).message


def test_a_sandbox_that_failed_can_be_made_again(guest: NativeAgent, container_root: Path) -> None:
    """A failure of its last step leaves no mount and no namespace; the next call starts from the beginning."""
    before = guest.mounts
    broken = pb.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point="/run/x", options=["size=nonsense"])
    for _ in range(2):
        request = pb.CreateSandboxRequest(sandbox_id="pod", hostname="first", storages=[memory("1m"), broken])
        assert "nonsense" in guest.refusal("CreateSandbox", request).message
        assert guest.mounts == before
    guest.sandbox(hostname="second", storages=[memory("1m")])
    assert guest.run("c1", shim_document(container_root, "hostname")).stdout == "second\n"


def test_policy(guest: NativeAgent, container_root: Path) -> None:
    """Set by the host, it denies before anything is done, and can be replaced only where it says so."""
    rego = guest.refusal("SetPolicy", pb.SetPolicyRequest(policy="package agent_policy\ndefault SetPolicyRequest := true"))
    assert (rego.code, "this is Rego" in rego.message) == (status.INVALID_ARGUMENT, True)
    guest.sandbox()
    first = "version = 1\nname = 'p'\nrpcs = ['*', 'SetPolicy']\ncommands = [['true']]"
    guest.do("SetPolicy", pb.SetPolicyRequest(policy=first))
    assert guest.run("c1", shim_document(container_root, "true")).status == 0
    with pytest.raises(RpcError) as caught:
        guest.create("c2", shim_document(container_root, "sh"))
    assert caught.value.code == status.PERMISSION_DENIED
    assert caught.value.message == "\n".join(
        ("CreateContainer is blocked by policy: rule 'commands' of policy 'p'", "asked:   sh", "allowed: true")
    )
    shell = guest.agent.client
    with pytest.raises(RpcError, match="is blocked by policy: rule 'rpcs'"):
        shell.call("innkeeper.v1.Guest", "StartShell", StartShellRequest(exec_id="s1"), Empty, 30)
    guest.do("SetPolicy", pb.SetPolicyRequest(policy="version = 1\nrpcs = ['*Sandbox']"))
    for method, request in (("SetPolicy", pb.SetPolicyRequest(policy=first)), ("ListRoutes", pb.ListRoutesRequest())):
        assert guest.refusal(method, request).code == status.PERMISSION_DENIED
    guest.agent.check()
    guest.agent.destroy_sandbox()


def test_policy_of_the_image(tmp_path: Path, guest: NativeAgent) -> None:
    """A file that the settings name is in force from the first call on, beside what the host sets."""
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "policy.toml").write_text("version = 1\nrpcs = ['Create*', 'GetGuestDetails', 'SetPolicy']")
    with native_agent(folder, env={"KATA_AGENT_POLICY_FILE": str(folder / "policy.toml")}) as limited:
        limited.sandbox()
        limited.do("SetPolicy", pb.SetPolicyRequest(policy="version = 1\nrpcs = ['ListRoutes']"))
        assert limited.refusal("ListRoutes", pb.ListRoutesRequest()).code == status.PERMISSION_DENIED


def test_sigkill_leaves_nothing(guest: NativeAgent) -> None:
    """The tests' own agent ends with all it has made."""
    guest.process.send_signal(signal.SIGTERM)
    guest.process.wait(30)
    assert not Path(f"/sys/fs/cgroup/innkeeper-agent-{guest.process.pid}").exists()


def test_a_user_by_name_is_looked_up_in_the_container(guest: NativeAgent, own_root: Path) -> None:
    """By the container's account files as they are now, links followed inside its root, in a worker; HOME is the account's."""
    root = own_root
    (root / "etc").mkdir(exist_ok=True)
    (root / "real").mkdir()
    for name in ("passwd", "group"):
        (root / "etc" / name).unlink(missing_ok=True)
    (root / "etc/passwd").symlink_to("/real/passwd")
    guest.sandbox()
    guest.start("box", shim_document(root, "sleep", "600"))
    (root / "real/passwd").write_text("late:x:2000:2001::/home/late:/bin/sh\nshort:x:5\n")
    (root / "etc/group").write_text("extra:x:50:late\nother:x:60:\n")
    show = ["sh", "-c", "echo $HOME $(id -u):$(id -g) $(id -G)"]

    def run(exec_id: str, user: pb.StringUser) -> str:
        process = process_to_proto({"args": show, "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}})
        guest.do("ExecProcess", pb.ExecProcessRequest(container_id="box", exec_id=exec_id, process=process, string_user=user))
        return guest.finish("box", exec_id).stdout.strip()

    assert run("e1", pb.StringUser(uid="late")) == "/home/late 2000:2001 2001 50"
    assert run("e2", pb.StringUser(uid="late", gid="other", additionalGids=["77"])) == "/home/late 2000:60 60 77"
    assert run("e3", pb.StringUser(uid="4242")) == "/ 4242:0 0"
    assert run("e4", pb.StringUser(uid="short")) == "/ 5:0 0"
    unknown = ((pb.StringUser(uid="nobody"), "user 'nobody' is not in"), (pb.StringUser(uid="0", gid="none"), "group 'none' is not"))
    for user, why in unknown:
        request = pb.ExecProcessRequest(container_id="box", exec_id="e5", process=process_to_proto({"args": show}), string_user=user)
        refused = guest.refusal("ExecProcess", request)
        assert (refused.code, why in refused.message) == (status.INVALID_ARGUMENT, True)
    # A file of another kind, or one that leads out, is no account file.
    (root / "real/passwd").unlink()
    os.mkfifo(root / "real/passwd")
    (root / "etc/group").unlink()
    (root / "etc/group").symlink_to("../../../../../etc/group")
    request = pb.ExecProcessRequest(container_id="box", exec_id="e6", process=process_to_proto({"args": show}), string_user={"uid": "late"})
    assert "user 'late' is not in" in guest.refusal("ExecProcess", request).message
