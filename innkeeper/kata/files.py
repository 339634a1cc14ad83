"""Files that an operator would otherwise write by hand.

They are the shim's configurations, containerd's handlers, and manifests for Kubernetes.
"""

from collections.abc import Mapping
from pathlib import Path

from innkeeper import manifests
from innkeeper.manifests import quoted

HANDLER = "innkeeper"
"""Runtime handler: QEMU with the disk image."""
INITRD_HANDLER = "innkeeper-initrd"
"""Runtime handler: QEMU with the initrd."""
CLH_HANDLER = "innkeeper-clh"
"""Runtime handler: Cloud Hypervisor with the disk image."""
RUNTIME = "io.containerd.kata.v2"
MEMORY_OVERHEAD = {HANDLER: "256Mi", INITRD_HANDLER: "320Mi", CLH_HANDLER: "256Mi"}
"""The memory overhead of an idle pod for each handler.

It consists of 131 MB of guest memory in use, 33 MB of the shim, 10 MB of virtiofsd, and QEMU
itself. An unpacked initrd stays in guest memory and takes another 47 MB.
"""


POD_ANNOTATIONS = ("io.katacontainers.config.agent.policy",)
"""The pod annotations that containerd passes to the shim.

Anyone who may create a pod writes these, so they must not be able to steer the node. Of all
annotations that the shim knows, only the policy is passed on: it can only restrict. For the same
reason, no configuration here has `enable_annotations`. See CVE-2026-44210 (arguments of virtiofsd)
and CVE-2026-50540 (a configuration file of the pod's choice, which shims before 4.0 accept whatever
is enabled).
"""


def qemu_with_image(kernel: Path, image: Path, qemu: Path, virtiofsd: Path, verity: str) -> str:
    """Return the shim's configuration for QEMU with the disk image.

    `verity` is the line of `verity.toml`.
    """
    return _qemu(kernel, _image(image, verity), qemu, virtiofsd)


def qemu_with_initrd(kernel: Path, initrd: Path, qemu: Path, virtiofsd: Path) -> str:
    """Return the shim's configuration for QEMU with an initrd.

    The VM has no disk, and its root is in guest memory.
    """
    return _qemu(kernel, f"initrd = {quoted(initrd)}\n", qemu, virtiofsd)


def cloud_hypervisor(kernel: Path, image: Path, program: Path, virtiofsd: Path, verity: str) -> str:
    """Return the shim's configuration for Cloud Hypervisor with the disk image.

    `kernel` is the ELF file, which Cloud Hypervisor starts by its PVH entry. `verity` is the line
    of `verity.toml`.
    """
    return f"""\
# Kata Containers' shim with Innkeeper's guest, on Cloud Hypervisor. Keys are those of Kata's own configuration-clh.toml.

[hypervisor.clh]
path = {quoted(program)}
valid_hypervisor_paths = [{quoted(program)}]
kernel = {quoted(kernel)}
{_image(image, verity)}{_vm(virtiofsd)}
{_REST}"""


def _qemu(kernel: Path, root: str, qemu: Path, virtiofsd: Path) -> str:
    return f"""\
# Kata Containers' shim with Innkeeper's guest, on QEMU. Keys are those of Kata's own configuration-qemu.toml.

[hypervisor.qemu]
path = {quoted(qemu)}
valid_hypervisor_paths = [{quoted(qemu)}]
kernel = {quoted(kernel)}
{root}machine_type = "q35"
{_vm(virtiofsd)}disable_nesting_checks = true       # else the shim makes devices legacy on a nested host, and vsock has no legacy form
hot_plug_vfio = "no-port"
cold_plug_vfio = "no-port"

{_REST}"""


def _image(image: Path, verity: str) -> str:
    """Return the keys for a root on a disk.

    As in all these texts, only keys are written that differ from the shim's defaults or that it
    requires.
    """
    return f"""\
image = {quoted(image)}
rootfs_type = "erofs"
disable_image_nvdimm = true         # the image is a disk: its root is /dev/vda1
# With this line the guest checks each block of its root that it reads:
# {verity.strip()}
"""


def _vm(virtiofsd: Path) -> str:
    return f"""\
kernel_params = ""
default_vcpus = 1
default_maxvcpus = 0                # as many as the node has
default_memory = 512                # MiB, beside what containers ask for
shared_fs = "virtio-fs"
virtio_fs_daemon = {quoted(virtiofsd)}
valid_virtio_fs_daemon_paths = [{quoted(virtiofsd)}]
virtio_fs_cache = "auto"
virtio_fs_cache_size = 0
virtio_fs_queue_size = 1024
virtio_fs_extra_args = ["--thread-pool-size=1"]
block_device_driver = "virtio-blk"
disable_selinux = true
disable_guest_selinux = true        # false with an image built by `build --variant selinux`
"""


_REST = """\
[agent.kata]
dial_timeout = 60                   # seconds
debug_console_enabled = false

[runtime]
internetworking_model = "tcfilter"
vfio_mode = "guest-kernel"
sandbox_cgroup_only = true
static_sandbox_resource_mgmt = false
disable_guest_seccomp = false       # the guest applies the profiles that it is sent
create_container_timeout = 60       # seconds; absent means none at all
experimental = []
"""


def containerd_handlers(configurations: Mapping[str, Path]) -> str:
    """Return the runtime handlers for /etc/containerd/config.toml (version 2).

    `configurations` maps each handler to its configuration file.
    """
    return "version = 2\n" + "".join(_handler(name, path) for name, path in configurations.items())


def _handler(name: str, configuration: Path) -> str:
    annotations = ", ".join(f'"{name}"' for name in POD_ANNOTATIONS)
    return manifests.handler(name, RUNTIME, configuration, keys=(f"pod_annotations = [{annotations}]",))


RUNTIME_CLASSES = "---\n".join(manifests.runtime_class(name, memory) for name, memory in MEMORY_OVERHEAD.items())
POD = manifests.example_pod(HANDLER, "the guest's kernel: 6.12.x-innkeeper")
