"""What an operator would otherwise write by hand: the shim's configuration, containerd's handler, and two manifests for Kubernetes."""

from pathlib import Path

HANDLER = "innkeeper"
MEMORY_OVERHEAD = "256Mi"
"""Of an idle pod: 131 MB of the guest's memory touched, 33 MB of the shim's, 10 MB of virtiofsd's, the rest QEMU's own."""


def quoted(path: Path) -> str:
    """A TOML string."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def shim_configuration(kernel: Path, image: Path, qemu: Path, virtiofsd: Path) -> str:
    """Kata's configuration file for QEMU, for its Go shim 4.1. Only what differs from the shim's own defaults, and what it insists on."""
    return f"""\
# Kata Containers' shim with Innkeeper's guest, on QEMU. Keys are those of Kata's own configuration-qemu.toml.

[hypervisor.qemu]
path = {quoted(qemu)}
valid_hypervisor_paths = [{quoted(qemu)}]
kernel = {quoted(kernel)}
image = {quoted(image)}
rootfs_type = "erofs"
machine_type = "q35"
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
disable_image_nvdimm = true         # the image is a disk: its root is /dev/vda1
disable_nesting_checks = true       # else the shim makes devices legacy on a nested host, and vsock has no legacy form
disable_selinux = true
disable_guest_selinux = true        # false with an image built by `build --variant selinux`
hot_plug_vfio = "no-port"
cold_plug_vfio = "no-port"

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


def containerd_handler(configuration: Path) -> str:
    """The runtime handler, for /etc/containerd/config.toml (version 2)."""
    table = f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{HANDLER}'
    return f"""\
version = 2

{table}]
  runtime_type = "io.containerd.kata.v2"
  privileged_without_host_devices = true
  pod_annotations = ["io.katacontainers.*"]
  {table}.options]
    ConfigPath = {quoted(configuration)}
"""


RUNTIME_CLASS = f"""\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: {HANDLER}
handler: {HANDLER}
overhead:
  podFixed:
    memory: {MEMORY_OVERHEAD}
    cpu: 100m
"""

POD = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: {HANDLER}-example
spec:
  runtimeClassName: {HANDLER}
  restartPolicy: Never
  containers:
    - name: kernel
      image: docker.io/library/busybox
      command: ["uname", "-r"]   # prints the guest's kernel: 6.12.x-innkeeper
"""
