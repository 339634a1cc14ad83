"""Real containers for tests: a busybox root, a document like docker's, and one call that runs it natively."""

import errno
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.container import create
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.init import child
from agent.container.init.plan import ChildPlan
from agent.container.spec.document import parse_process, parse_spec
from agent.errors import StepFailed

Document = dict[str, Any]

APPLETS = """
sh echo cat ls id env true false sleep mount umount ps kill stty mkdir touch rm head wc dd grep mknod chmod hostname readlink test
printf stat tty date ln sync yes seq timeout find nproc ipcs pwd unshare chroot dmesg reboot sort cut uname
"""
DOCKER = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
DOCKER_CAPABILITIES = [f"CAP_{name}" for name in DOCKER.split()]
PATH = "PATH=/bin:/usr/bin"
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


FIRST, COUNT = 200000, 65536
"""The users outside that those of a container are mapped to."""


def with_users(doc: Document) -> Document:
    """A document with a new user namespace."""
    doc["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        doc["linux"][key] = [{"containerID": 0, "hostID": FIRST, "size": COUNT}]
    return doc


@contextmanager
def failing_at(step: str) -> Iterator[None]:
    """Have one step of creating a container or of exec fail, in the parent's table or the child's."""

    async def in_parent(builder: create.ContainerBuilder) -> None:
        raise StepFailed(step, "failure injected", errno.ECANCELED)

    def in_child(plan: ChildPlan) -> None:
        raise OSError(errno.ECANCELED, "failure injected")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "STEPS", [(name, in_parent if name == step else run, why) for name, run, why in create.STEPS])
        for table in ("INIT_STEPS", "EXEC_STEPS"):
            steps = [(name, in_child if name == step else run, why) for name, run, why in getattr(child, table)]
            patch.setattr(child, table, steps)
        yield


def open_parents(path: Path) -> None:
    """pytest's directories are for root only."""
    for parent in (path.parent, *path.parent.parents[:3]):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)


def busybox_root(path: Path) -> Path:
    """A root file system of busybox and a passwd file, at `path`."""
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/app"):
        (path / name).mkdir(parents=True)
    path.chmod(0o755)
    (path / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", path / "bin/busybox")
    for applet in APPLETS.split():
        (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    os.chown(path / "home/app", 1000, 1000)
    return path


def cgroup2() -> Path:
    """Where this host mounts cgroup v2."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise FileNotFoundError("no cgroup2 mount")


def mounts() -> list[Document]:
    """The mounts that docker gives."""
    safe = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*safe, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*safe, "relatime", "ro"]},
    ]


def document(root: Path, *args: str) -> Document:
    """A specification like docker's default, without a seccomp profile."""
    capabilities = list(DOCKER_CAPABILITIES)
    return {
        "ociVersion": "1.2.0",
        "root": {"path": str(root)},
        "hostname": "box",
        "process": {
            "args": list(args),
            "env": [PATH],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "noNewPrivileges": True,
        },
        "mounts": mounts(),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "cgroup")],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }


@dataclass(frozen=True)
class Result:
    """What a program wrote and how it ended."""

    stdout: str
    stderr: str
    status: int


async def read_all(read: Callable[[int], Awaitable[bytes]]) -> bytes:
    """A stream to its end."""
    parts = []
    while data := await read(1 << 16):
        parts.append(data)
    return b"".join(parts)


async def finish(process: Any) -> Result:
    """Read both streams of a started process to their ends and wait for it."""
    out = loop.spawn(read_all(process.stdio.read_stdout), name="stdout")
    err = b"" if process.terminal else await read_all(process.stdio.read_stderr)
    stdout = await out.wait()
    return Result(stdout.decode(errors="replace"), err.decode(errors="replace"), await process.wait())


class Box:
    """Runs documents below one cgroup; `id` names its container."""

    def __init__(self, root: Path, host: HostContext, id: str) -> None:
        self.root = root
        self.host = host
        self.id = id

    def document(self, *args: str) -> Document:
        """A default document of this root."""
        return document(self.root, *args)

    def run(self, doc: Document, stdin: bytes = b"") -> Result:
        """Create, start, feed, read, wait, remove."""

        async def main() -> Result:
            container = await self.create(doc)
            try:
                await container.start()
                if stdin:
                    await container.init.stdio.write_stdin(stdin)
                container.init.stdio.close_stdin()
                return await finish(container.init)
            finally:
                await container.remove()

        return loop.run(main())

    def sh(self, script: str) -> Result:
        """A shell script in the default container."""
        return self.run(self.document("sh", "-c", script))

    async def create(self, doc: Document, host: HostContext | None = None) -> Container:
        """A created container; the caller removes it."""
        return await Container.create(self.id, self.id, parse_spec(doc), host or self.host)

    def during(self, doc: Document, use: Callable[[Container], Awaitable[Any]]) -> Any:
        """What `use` gives with a running container, which is removed afterwards."""

        async def main() -> Any:
            container = await self.create(doc)
            try:
                await container.start()
                return await use(container)
            finally:
                await container.remove()

        return loop.run(main())


async def execute(container: Container, *args: str, exec_id: str = "e1", **changes: Any) -> Result:
    """Run one more program in a container to its end."""
    process = await container.exec(exec_id, parse_process({"args": list(args), "env": [PATH], "cwd": "/", **changes}))
    process.stdio.close_stdin()
    return await finish(process)


async def whole_life(box: Box, doc: Document, step: str = "") -> None:
    """Create, start and remove a container. `step` fails, if it is not empty."""
    with failing_at(step):
        container = await box.create(doc)
    try:
        await container.start()
    finally:
        await container.remove()
