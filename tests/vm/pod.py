"""One guest, and containers in it by the calls that a shim makes: tests of what several containers see cost one boot."""

import itertools
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from innkeeper import guest, programs
from innkeeper.client import Agent, connect
from innkeeper.engine import resolve as planning
from innkeeper.engine.host import virtual_machine
from innkeeper.guest import Variant
from innkeeper.image import Image, RunOptions, process_to_proto, resolve, to_proto
from innkeeper.image.run_plan import RunPlan, plan_run
from innkeeper.vm import AGENT_PORT, Disk, VmConfig
from innkeeper.wire.pb import agent_pb2, guest_pb2

PROBE_BEGINS = r"""
import ctypes, errno, json, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)

def called(function, *arguments):
    ctypes.set_errno(0)
    return errno.errorcode[ctypes.get_errno()] if function(*arguments) < 0 else "done"

def tried(function, *arguments, **named):
    try:
        function(*arguments, **named)
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]

def opened(path, flags):
    return tried(lambda: os.close(os.open(path, flags)))
"""
"""What programs begin with that try things inside a container and say how each went."""

TIMEOUT = 180
"""Seconds: far more than a start takes, for machines that are slow or busy."""
Document = dict[str, Any]
Change = Callable[[Document], None]


def in_user_namespace(document: Document) -> None:
    """A change: the container gets a user namespace of its own, and what goes with it.

    sysfs needs a network namespace that belongs to it; a host name and mqueue are the sandbox's, as their namespaces are.
    """
    del document["hostname"]
    document["mounts"] = [mount for mount in document["mounts"] if mount["type"] != "mqueue"]
    # Its groups end at those that are mapped; docker leaves the setting out as well then.
    document["linux"]["sysctl"].pop("net.ipv4.ping_group_range")
    document["linux"]["namespaces"] += [{"type": "user"}, {"type": "network"}]
    for kind in ("uid", "gid"):
        document["linux"][f"{kind}Mappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]


@dataclass(frozen=True)
class Result:
    """How a process ended and what it wrote."""

    status: int
    stdout: str
    stderr: str


class Pod:
    """The agent of one guest. Containers get their ids from the test, or by number."""

    def __init__(self, agent: Agent, address: str, image: Image, mac: str) -> None:
        self.agent = agent
        self.address = address
        self._image = image
        self._mac = mac
        self._numbers = itertools.count(1)

    def create(self, id: str, args: Sequence[str], change: Change | None = None, **options: Any) -> None:
        """Create and start a container as `run` with `options` would; `change` has the last word on its specification."""
        plan: RunPlan = plan_run(self._image, RunOptions(args=args, mac=self._mac, **options), id)
        for place in plan.copied_files.values():
            self.agent.copy_file(agent_pb2.CopyFileRequest(path=place, file_mode=0o100644, dir_mode=0o755))
        if change is not None:
            change(plan.document)
        self.agent.create_container(
            agent_pb2.CreateContainerRequest(container_id=id, exec_id=id, storages=plan.storages, OCI=to_proto(plan.document))
        )
        self.agent.start_container(id)

    def run(self, *args: str, change: Change | None = None, **options: Any) -> Result:
        """A container from its creation to its removal."""
        id = f"container-{next(self._numbers)}"
        self.create(id, args, change, **options)
        result = self._result(id, id)
        self.agent.remove_container(id)
        return result

    def exec(self, container_id: str, *args: str, **process: Any) -> Result:
        """One more process, of which only the program is said, and `process`, in the specification's names."""
        exec_id = f"exec-{next(self._numbers)}"
        document = {"args": list(args), "env": ["PATH=/usr/bin:/bin"], "cwd": "/", **process}
        self.agent.exec_process(container_id, exec_id, process_to_proto(document))
        return self._result(container_id, exec_id)

    def shell(self, script: str) -> str:
        """Return what a shell of the guest itself printed; the guest must be of the variant debug."""
        exec_id = f"shell-{next(self._numbers)}"
        self.agent.start_shell(guest_pb2.StartShellRequest(exec_id=exec_id, args=["sh", "-c", script], env=["PATH=/usr/bin:/bin"]))
        result = self._result("guest", exec_id)
        assert result.status == 0, result.stderr
        return result.stdout

    def _result(self, container_id: str, exec_id: str) -> Result:
        self.agent.close_stdin(container_id, exec_id)
        out, err = (_all(partial(read, container_id, exec_id, 1 << 20)) for read in (self.agent.read_stdout, self.agent.read_stderr))
        return Result(self.agent.wait_process(container_id, exec_id, TIMEOUT), out, err)


def _all(read: Callable[[], bytes]) -> str:
    return b"".join(iter(read, b"")).decode()


@contextmanager
def booted(image: str, folder: Path, variant: Variant = "release", *, parameters: tuple[str, ...] = ()) -> Iterator[Pod]:
    """A guest with a sandbox and the image at hand. `folder` takes its scratch disk. `parameters` are more for its kernel."""
    artifacts = guest.build(None, variant)
    resolved = resolve(image)
    scratch = folder / "scratch.img"
    with scratch.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run([programs.require("mke2fs"), "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", scratch], check=True)
    disks = (Disk(resolved.erofs, read_only=True), Disk(scratch, volatile=True))
    words = (*planning.kernel_parameters(variant), *parameters)
    spec = VmConfig(kernel=artifacts.vmlinux, root=artifacts.rootfs, memory_mib=1024, disks=disks, network=False, cmdline=words)
    with virtual_machine(spec) as vm:
        vm.start()
        vm.wait_ready(TIMEOUT)
        with connect(vm.address(AGENT_PORT), TIMEOUT) as client:
            agent = Agent(client, TIMEOUT)
            agent.create_sandbox(agent_pb2.CreateSandboxRequest(hostname="pod", sandbox_id="pod"))
            yield Pod(agent, vm.address(AGENT_PORT), resolved, planning.mandatory_access_control(variant))
        vm.kill()
