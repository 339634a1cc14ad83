"""Which package may import which: the table that `test_imports` enforces and that docs/architecture.md shows.

python -m tests.unit.import_rules      write the table into docs/architecture.md
"""

from dataclasses import dataclass

from tests.paths import ROOT

DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: begin (python -m tests.unit.import_rules) -->", "<!-- imports: end -->"


@dataclass(frozen=True)
class Package:
    """A package or module, what it holds, and which others of ours it may import besides itself."""

    name: str
    holds: str
    imports: tuple[str, ...] = ()


_KERNEL = ("agent.errors", "agent.linux", "agent.loop")
_GUEST_STATE = (*_KERNEL, "agent.worker", "agent.device", "innkeeper.wire")
_CONTAINERS = (
    *_GUEST_STATE,
    "agent.run_to_completion",
    "agent.config",
    "agent.event_log",
    "agent.container_events",
    "agent.log",
    "agent.container",
)
_HOST = ("innkeeper.errors", "innkeeper.files", "innkeeper.paths", "innkeeper.progress", "innkeeper.programs")

PACKAGES = (
    Package("innkeeper.errors", "the one exception that a user sees as a message and a hint"),
    Package("innkeeper.paths", "where the host's side keeps its files, and what it is called"),
    Package("innkeeper.files", "locks on files, files that are replaced as a whole, copies with holes, hashes", ("innkeeper.progress",)),
    Package("innkeeper.libc", "system calls that Python has no function for"),
    Package("innkeeper.progress", "progress on standard error", ("innkeeper.errors",)),
    Package("innkeeper.programs", "programs of the host: which package has each", ("innkeeper.errors", "innkeeper.progress")),
    Package(
        "innkeeper.wire",
        "frames, connection state machine, envelope, status codes, `.proto` and generated messages; no I/O",
        ("innkeeper.errors",),
    ),
    Package("innkeeper.dial", "dial an agent: vsock, unix, hybrid vsock", ("innkeeper.errors",)),
    Package("innkeeper.client", "connect, call; typed errors", ("innkeeper.dial", "innkeeper.wire")),
    Package(
        "innkeeper.vm",
        "QEMU: accelerator, vsock or virtio-serial, disks, shares, network, console, lifetime",
        (
            "innkeeper.errors",
            "innkeeper.files",
            "innkeeper.libc",
            "innkeeper.paths",
            "innkeeper.progress",
            "innkeeper.dial",
            "innkeeper.wire",
        ),
    ),
    Package("innkeeper.skopeo", "skopeo with its errors as one line each", ("innkeeper.errors", "innkeeper.programs")),
    Package(
        "innkeeper.image", "OCI image to block device; docker's options to an OCI spec", (*_HOST, "innkeeper.skopeo", "innkeeper.wire")
    ),
    Package(
        "innkeeper.guest",
        "the build pipeline: store, builder, kernel, freeze, root, disk, manifest",
        (*_HOST, "innkeeper.libc", "innkeeper.skopeo"),
    ),
    Package(
        "innkeeper.engine",
        "a container in a virtual machine as a library: request, session, exec, streams, records",
        (*_HOST, "innkeeper.dial", "innkeeper.wire", "innkeeper.client", "innkeeper.vm", "innkeeper.image", "innkeeper.guest"),
    ),
    Package(
        "innkeeper.installation",
        "files that are installed on a host, and the list by which they are removed",
        ("innkeeper.errors", "innkeeper.files"),
    ),
    Package("innkeeper.manifests", "parts of containerd's configuration and of manifests for Kubernetes"),
    Package(
        "innkeeper.kata",
        "the guest laid out for Kata's shim",
        ("innkeeper.errors", "innkeeper.files", "innkeeper.guest", "innkeeper.installation", "innkeeper.manifests"),
    ),
    Package(
        "innkeeper.node",
        "our containerd shim on a node: install it, remove it, say what the node lacks",
        (
            "innkeeper.errors",
            "innkeeper.paths",
            "innkeeper.programs",
            "innkeeper.guest",
            "innkeeper.installation",
            "innkeeper.manifests",
            "innkeeper.engine",
            "innkeeper.shim",
            "innkeeper.vm",
        ),
    ),
    Package(
        "innkeeper.shim",
        "containerd's shim: bootstrap, task service, events, streams; a VM for a container or a pod",
        (
            "innkeeper.errors",
            "innkeeper.paths",
            "innkeeper.files",
            "innkeeper.libc",
            "innkeeper.dial",
            "innkeeper.wire",
            "innkeeper.client",
            "innkeeper.vm",
            "innkeeper.image",
            "innkeeper.engine",
        ),
    ),
    Package(
        "bench",
        "figures of this machine; not needed to run containers",
        (
            *_HOST,
            "innkeeper.cli.flags",
            "innkeeper.dial",
            "innkeeper.wire",
            "innkeeper.client",
            "innkeeper.vm",
            "innkeeper.image",
            "innkeeper.guest",
            "innkeeper.engine",
        ),
    ),
    Package("innkeeper.machine", "deprecated name of `innkeeper.vm`", ("innkeeper.vm", "innkeeper.engine")),
    Package("innkeeper.build", "deprecated name of `innkeeper.guest`", ("innkeeper.guest",)),
    Package("innkeeper.cli", "one file a subcommand: parse, call the engine, print", ("innkeeper",)),
    Package("agent.errors", "errors, each with its status code", ("innkeeper.wire",)),
    Package("agent.timeline", "stages of the boot"),
    Package("agent.linux", "system calls under their kernel names", ("agent.errors",)),
    Package(
        "agent.loop",
        "coroutines on epoll: the loop, tasks, what tasks wait for; owns descriptors; accepts on sockets; ends children",
        ("agent.errors", "agent.linux", "agent.log"),
    ),
    Package("agent.log", "JSON lines on standard error", ("agent.errors", "agent.linux")),
    Package("agent.config", "kernel command line, TOML file, environment", ("agent.errors", "agent.log")),
    Package("agent.worker", "work that may block, in a forked child", _KERNEL),
    Package("agent.run_to_completion", "work that goes on when its caller is cancelled", ("agent.errors", "agent.log", "agent.loop")),
    Package(
        "agent.container",
        "spec, life cycle, init, root file system, cgroup, seccomp, streams",
        (*_KERNEL, "agent.run_to_completion", "agent.worker"),
    ),
    Package("agent.device", "devices of the guest: uevents, block devices, PCI", (*_KERNEL, "agent.worker", "innkeeper.wire")),
    Package("agent.storage", "storage drivers and the table of what is mounted", (*_GUEST_STATE, "agent.run_to_completion")),
    Package("agent.network", "interfaces, routes, neighbours, DNS", _GUEST_STATE),
    Package("agent.event_log", "events of containers, numbered and kept for a while", ("agent.errors", "agent.loop")),
    Package(
        "agent.container_events",
        "when a container's start, exits and removal become events",
        ("agent.container", "agent.event_log", "agent.log", "agent.loop"),
    ),
    Package("agent.lsm", "loads the image's policy of mandatory access control", ("agent.errors", "agent.linux", "agent.log")),
    Package("agent.policy", "what may be asked of the agent", ("agent.errors", "agent.linux", "agent.log", "innkeeper.wire")),
    Package(
        "agent.pod",
        "containers by id; from the host's request to the guest's specification; shared namespaces",
        (*_CONTAINERS, "agent.storage"),
    ),
    Package(
        "agent.sandbox",
        "the guest's state: what its containers share, shutdown",
        (*_CONTAINERS, "agent.pod", "agent.policy", "agent.storage", "agent.network"),
    ),
    Package("agent.service", "listener, dispatch, one small handler for each RPC", ("agent", "innkeeper.wire")),
    Package("agent.vsock_services", "services on further vsock ports: log, console, streams", ("agent", "innkeeper.wire")),
    Package(
        "agent.gateway",
        "gRPC: a program of its own, which PID 1 starts and never imports",
        ("agent.errors", "agent.linux", "innkeeper.wire"),
    ),
    Package("agent.oci", "the container core as an OCI runtime command for hosts", (*_KERNEL, "agent.container")),
    Package(
        "agent.virtio_serial",
        "the guest's ports over a virtio-serial port, where the host has no vsock",
        ("agent.log", "agent.loop", "innkeeper.wire"),
    ),
    Package("agent.ready_notify", "tells the host that the agent listens", ("agent.errors", "agent.log", "agent.loop")),
    Package("agent.standalone", "the agent as an ordinary process of root", ("agent.errors", "agent.linux")),
    Package("agent.early_boot", "PID 1: mounts, devices, cgroups, limits", ("agent.errors", "agent.linux", "agent.log")),
    Package("agent.ptp_clock", "follows the host's clock where KVM shows it", ("agent.linux", "agent.log", "agent.loop")),
    Package("agent.bootstrap", "PID 1: loads what serves containers, then serves", ("agent", "innkeeper.wire")),
    Package("agent.__main__", "entry: listens, answers Check, then boots", ("agent", "innkeeper.wire")),
)


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| package | holds | may import |", "|---|---|---|"]
    for package in PACKAGES:
        imports = ", ".join(f"`{name}`" for name in dict.fromkeys(package.imports)) or "nothing of ours"
        lines.append(f"| `{package.name}` | {package.holds} | {imports} |")
    return "\n".join(lines)


def insert(text: str) -> str:
    """Return `text` with the table between the two markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(insert(DOCUMENT.read_text()))
