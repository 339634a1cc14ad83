"""What CRI asks of a pod by the sandbox service, as the specification of a pause container.

There is no bundle with a specification then, and containerd makes none of the pod's files: host
name, resolver and shared memory are given to each container here.
"""

from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.shim import spec
from innkeeper.shim.pb import containerd_pb2 as pb

TYPE = "runtime.v1.PodSandboxConfig"
POD_FILES = "pod"
"""The folder of a VM with the files of its pod."""
OF_NODE = 2
"""NamespaceMode.NODE of CRI."""
HOST_RESOLVER = Path("/etc/resolv.conf")


def config(request: pb.CreateSandboxRequest) -> pb.PodSandboxConfig:
    """Return CRI's configuration of the pod. Raises InnkeeperError if there is none."""
    name = request.options.type_url.rpartition("/")[2]
    if name != TYPE:
        raise InnkeeperError(f"sandbox {request.sandbox_id}: its options are {name or 'empty'}, not {TYPE}: only pods of CRI are supported")
    return pb.PodSandboxConfig.FromString(request.options.value)


def document(pod: pb.PodSandboxConfig, sandbox_id: str, network: str) -> spec.Document:
    """Return a specification of a sandbox for `Pod`.

    It has names, sizes, namespaces, sysctls and cgroup.
    """
    linux = pod.linux
    modes = linux.security_context.namespace_options
    of_host = {kind for kind, mode in (("network", modes.network), ("pid", modes.pid), ("ipc", modes.ipc)) if mode == OF_NODE}
    namespaces = [{"type": kind} for kind in ("network", "pid", "ipc", "uts", "mount") if kind not in of_host]
    for namespace in namespaces:
        if namespace["type"] == "network" and network:
            namespace["path"] = network
    prefix, size = "io.kubernetes.cri.sandbox-", linux.resources
    sizes = {"memory": size.memory_limit_in_bytes, "cpu-quota": size.cpu_quota, "cpu-period": size.cpu_period}
    return {
        "hostname": pod.hostname,
        "annotations": {spec.CONTAINER_TYPE: "sandbox", **{prefix + name: str(value) for name, value in sizes.items() if value}},
        "mounts": [],
        "linux": {
            "namespaces": namespaces,
            "sysctl": dict(linux.sysctls),
            **({"cgroupsPath": _cgroups_path(linux.cgroup_parent, sandbox_id)} if linux.cgroup_parent else {}),
        },
    }


def _cgroups_path(parent: str, sandbox_id: str) -> str:
    """Return the path as containerd writes it for a pause container.

    A parent of systemd's driver is a slice.
    """
    if parent.endswith(".slice"):
        return f"{parent.rpartition('/')[2]}:cri-containerd:{sandbox_id}"
    return f"{parent}/{sandbox_id}"


def mounts(pod: pb.PodSandboxConfig, folder: Path) -> list[spec.Document]:
    """Write the pod's files into `folder`. Return the mounts that its containers get of them."""
    folder.mkdir(mode=0o755)
    texts = {"/etc/resolv.conf": resolver(pod.dns_config)}
    if pod.hostname:
        texts["/etc/hostname"] = f"{pod.hostname}\n"
        texts["/etc/hosts"] = f"127.0.0.1 localhost {pod.hostname}\n::1 localhost\n"
    found: list[spec.Document] = [{"destination": "/dev/shm", "type": "bind", "source": "shm", "options": ["rbind"]}]
    for destination, text in texts.items():
        path = folder / Path(destination).name
        path.write_text(text)
        found.append({"destination": destination, "type": "bind", "source": str(path), "options": ["rbind", "rprivate", "rw"]})
    return found


def resolver(dns: pb.DNSConfig) -> str:
    """Return the pod's resolv.conf: what CRI asks for, or the host's if it asks for nothing."""
    if not (dns.servers or dns.searches or dns.options):
        return HOST_RESOLVER.read_text() if HOST_RESOLVER.exists() else ""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "\n".join(lines) + "\n"
