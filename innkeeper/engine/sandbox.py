"""Sets up the guest for one container, by the calls that Kata's shim also makes: network, clock, entropy, sandbox, files, container."""

import os
import time

from innkeeper.client import Agent
from innkeeper.engine.resolve import Plan
from innkeeper.image import to_proto
from innkeeper.image.plan import RunPlan
from innkeeper.vm import network
from innkeeper.wire.pb import agent_pb2, types_pb2


def prepare(agent: Agent, plan: Plan, run: RunPlan, container_id: str) -> None:
    """Everything up to, and with, CreateContainer."""
    hostname = str(run.document["hostname"])
    now = time.time()
    agent.set_guest_date_time(int(now), int(now % 1 * 1e6))
    agent.reseed_random(os.urandom(64))
    if plan.wish.network:
        _network(agent)
    resolv_conf = _resolv_conf(plan)
    request = agent_pb2.CreateSandboxRequest(hostname=hostname, dns=resolv_conf.splitlines(), sandbox_id=container_id)
    agent.create_sandbox(request)
    contents = {"resolv.conf": resolv_conf, "hostname": f"{hostname}\n", "hosts": _hosts(plan, hostname)}
    for name, place in run.copied_files.items():
        data = contents[name].encode()
        agent.copy_file(agent_pb2.CopyFileRequest(path=place, file_size=len(data), file_mode=0o100644, dir_mode=0o755, data=data))
    agent.create_container(
        agent_pb2.CreateContainerRequest(container_id=container_id, exec_id=container_id, storages=run.storages, OCI=to_proto(run.document))
    )


def _network(agent: Agent) -> None:
    address = types_pb2.IPAddress(family=types_pb2.v4, address=network.GUEST_ADDRESS, mask=str(network.PREFIX_LENGTH))
    agent.update_interface(types_pb2.Interface(device="eth0", name="eth0", IPAddresses=[address], mtu=1500, hwAddr=network.MAC))
    agent.update_routes([types_pb2.Route(dest="", gateway=network.GATEWAY, device="eth0")])


def _resolv_conf(plan: Plan) -> str:
    """QEMU's name server answers what the host's would; the host's search domains apply as they do there."""
    if not plan.wish.network:
        return ""
    kept = []
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            kept = [line.strip() for line in file if line.split()[:1] in (["search"], ["options"])]
    except OSError:
        pass  # a host without name resolution: addresses still work
    return "".join(f"{line}\n" for line in [f"nameserver {network.NAME_SERVER}", *kept])


def _hosts(plan: Plan, hostname: str) -> str:
    own_address = network.GUEST_ADDRESS if plan.wish.network else "127.0.1.1"
    return (
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n"
        f"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n{own_address}\t{hostname}\n"
    )
