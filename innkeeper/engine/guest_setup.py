"""Set up the guest for one container with the calls that Kata's shim also makes.

In order: clock, entropy, network, sandbox, files, container.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from innkeeper.client import Agent
from innkeeper.engine import clock
from innkeeper.engine.resolve import ResolvedRun
from innkeeper.image import to_proto
from innkeeper.image.option_values import HOST_GATEWAY
from innkeeper.image.run_plan import RunPlan
from innkeeper.vm import network
from innkeeper.wire.pb import agent_pb2, types_pb2


def prepare(agent: Agent, resolved: ResolvedRun, run: RunPlan, container_id: str, *, booted: bool = True) -> None:
    """Make every call up to and including CreateContainer.

    Not `booted` is a clone: its template has the network, ResumeClone set clock and entropy.
    """
    hostname = str(run.document["hostname"])
    if booted:
        clock.set_now(agent)
        agent.reseed_random(os.urandom(64))
        if resolved.request.network:
            configure_network(agent)
    servers = _resolv_conf(resolved)
    sandbox = agent_pb2.CreateSandboxRequest(hostname=hostname, dns=servers.splitlines(), sandbox_id=container_id)
    hosts = hosts_file(hostname, own_address(resolved), resolved.options.add_hosts)
    contents = {"resolv.conf": servers, "hostname": f"{hostname}\n", "hosts": hosts}
    files = [_file(path, contents[name].encode()) for name, path in run.copied_files.items()]
    agent.create_sandbox_with_files(sandbox, files)
    agent.create_container(
        agent_pb2.CreateContainerRequest(container_id=container_id, exec_id=container_id, storages=run.storages, OCI=to_proto(run.document))
    )


def _file(path: str, data: bytes) -> agent_pb2.CopyFileRequest:
    return agent_pb2.CopyFileRequest(path=path, file_size=len(data), file_mode=0o100644, dir_mode=0o755, data=data)


def configure_network(agent: Agent) -> None:
    """Set address and default route of the VM's network card, which are the same in every VM."""
    address = types_pb2.IPAddress(family=types_pb2.v4, address=network.GUEST_ADDRESS, mask=str(network.PREFIX_LENGTH))
    agent.update_interface(types_pb2.Interface(device="eth0", name="eth0", IPAddresses=[address], mtu=1500, hwAddr=network.MAC))
    agent.update_routes([types_pb2.Route(dest="", gateway=network.GATEWAY, device="eth0")])


def _resolv_conf(resolved: ResolvedRun) -> str:
    """Return the text of the container's /etc/resolv.conf, or "" without network and --dns.

    QEMU's name server forwards queries to the host's, so the search domains of the host are kept.
    """
    options = resolved.options
    if not resolved.request.network and not options.dns:
        return ""
    try:
        host = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        host = ""  # a host without name resolution: addresses still work
    return resolv_conf(host, options.dns or [network.NAME_SERVER], options.dns_search, options.dns_options)


def resolv_conf(host: str, servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """Return the text of /etc/resolv.conf.

    `host` is the host's file: its search domains and options apply unless others are given.
    `--dns-search .` means no search domain, as with docker.
    """
    lines = [f"nameserver {server}" for server in servers]
    for word, given in (("search", search), ("options", options)):
        if given:
            lines += [f"{word} {' '.join(given)}"] if list(given) != ["."] else []
        else:
            lines += [line.strip() for line in host.splitlines() if line.split()[:1] == [word]]
    return "".join(f"{line}\n" for line in lines)


def hosts_file(hostname: str, address: str, extra: Sequence[tuple[str, str]] = ()) -> str:
    """Return the text of /etc/hosts. `extra` are the (name, address) pairs of --add-host.

    A name with a domain is followed by its first label, as docker does, because programs look up
    their short name.
    """
    short = hostname.partition(".")[0]
    names = f"{hostname} {short}" if short not in ("", hostname) else hostname
    return (
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        + "".join(f"{network.GATEWAY if ip == HOST_GATEWAY else ip}\t{name}\n" for name, ip in extra)
        + f"{address}\t{names}\n"
    )


def own_address(resolved: ResolvedRun) -> str:
    """Return the address of the container's own name: Debian's 127.0.1.1 without a network."""
    return network.GUEST_ADDRESS if resolved.request.network else "127.0.1.1"
