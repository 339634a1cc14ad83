"""The same attackers in a guest: one machine for the whole suite, a folder shared by virtio-fs, PID 1 watched by a container of ours."""

from pathlib import Path

from innkeeper.client import Agent, connect
from innkeeper.engine.host import virtual_machine
from innkeeper.image import defaults, process_to_proto, to_proto
from innkeeper.vm import AGENT_PORT, Share
from innkeeper.wire.pb import agent_pb2
from tests.escape.documents import ENVIRONMENT, PROGRAM, Document
from tests.escape.report import Answer
from tests.escape.target import FACTS, PATIENCE, Target
from tests.vm.guest import vm_config

TAG = "escape"
SHARED = "/run/kata-containers/shared/containers/escape"
OBSERVER = "observer"
BOOT_SECONDS = 300


class Guest(Target):
    """The agent as PID 1 of a VM."""

    name = "guest"
    slow = True

    def __init__(self, outside: Path, payload: Path) -> None:
        super().__init__(outside, SHARED, payload)
        self.vm = virtual_machine(vm_config(memory_mib=512, shares=(Share.of(TAG, outside),)))
        try:
            self.vm.start()
            self.vm.wait_ready(BOOT_SECONDS)
            self.address = self.vm.address(AGENT_PORT)
            self.client = connect(self.address, BOOT_SECONDS)
            self.agent = Agent(self.client, PATIENCE)
            self.agent.check()
            self._start_observer()
        except BaseException:
            self.vm.close()
            raise

    def _start_observer(self) -> None:
        """A container of the owner's: in the agent's own pid and cgroup namespaces, with every right."""
        storage = agent_pb2.Storage(driver="virtio-fs", source=TAG, fstype="virtiofs", mount_point=SHARED)
        request = agent_pb2.CreateContainerRequest(
            container_id=OBSERVER, exec_id=OBSERVER, OCI=to_proto(self._observer_document()), storages=[storage]
        )
        self.agent.create_container(request)
        self.agent.start_container(OBSERVER)

    def _observer_document(self) -> Document:
        names = list(defaults.ALL_CAPABILITIES)
        return {
            "ociVersion": "1.2.0",
            "root": {"path": self.inner(self.plain)},
            "process": {
                "args": [PROGRAM, "hold"],
                "env": list(ENVIRONMENT),
                "cwd": "/",
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
            },
            "mounts": [
                defaults.mount("/proc", "proc", "proc"),
                defaults.mount("/dev", "tmpfs", "tmpfs"),
                {"destination": "/volume", "type": "bind", "source": "/sys/fs/cgroup", "options": ["rbind"]},
            ],
            "linux": {
                "namespaces": [
                    {"type": "mount"},
                    {"type": "pid", "path": "/proc/1/ns/pid"},
                    {"type": "cgroup", "path": "/proc/1/ns/cgroup"},
                ]
            },
        }

    def look(self) -> list[Answer]:
        exec_id = "look"
        names = list(defaults.ALL_CAPABILITIES)
        process = {
            "args": [PROGRAM, "observe", "/proc/1", "/volume", "/proc/1/root/run", "+", "read", *FACTS],
            "env": list(ENVIRONMENT),
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
        }
        self.agent.exec_process(OBSERVER, exec_id, process_to_proto(process))
        return self.finish(OBSERVER, exec_id).answers

    def log(self) -> str:
        return self.vm.console_path.read_text(errors="replace")

    def close(self) -> None:
        """End the VM, which must not have ended before."""
        try:
            assert self.vm.poll() is None, self.log()
            assert self.vm.failure() is None
            self.client.close()
        finally:
            self.vm.kill()
            self.vm.close()
