"""Process 1 of a pod whose containers share a pid namespace.

CRI's pause container is only a record of the shim: there is nothing of it in the guest. But a pid
namespace ends with its process 1, so if the first container's were that, the others would be killed
when it ends. So the guest gets a container of ours first. Its only program waits for ever, and as
it ignores SIGCHLD the kernel reaps what is left to it (wait(2)). It has a root of its own, no user
of others and no capabilities.
"""

import contextlib
import platform
import shutil
import stat
from pathlib import Path

from innkeeper.client import Agent, RpcError
from innkeeper.errors import InnkeeperError
from innkeeper.image.elf import static_program
from innkeeper.image.proto import to_proto
from innkeeper.shim.spec import Document
from innkeeper.shim.volumes import ROOT, SHARE
from innkeeper.wire.pb import agent_pb2

ID = "pause"
"""Its name in the guest. Those of containerd's containers have a prefix."""
PROGRAM = "pause"
NOBODY = 65535
"""User and group: the ones of Kubernetes' pause image."""
CODE = {
    "x86_64": bytes.fromhex(
        "b80d000000"  # mov eax, 13         rt_sigaction(
        "bf11000000"  # mov edi, 17         SIGCHLD,
        "488d3513000000"  # lea rsi, [rip + 19]     &action,
        "31d2"  # xor edx, edx              NULL,
        "41ba08000000"  # mov r10d, 8       8)
        "0f05"  # syscall
        "b822000000"  # mov eax, 34         pause()
        "0f05"  # syscall
        "ebf7"  # jmp to the former mov
        "0100000000000000"  # action: SIG_IGN,
    )
    + bytes(24)  # no flags, no restorer, no signals
}


def create(agent: Agent, shared: Path | None) -> None:
    """Create the container and start it.

    Its root is made in the folder that the guest shares, or copied if there is none. Whatever
    fails, nothing of it stays. Raises InnkeeperError on a host for whose processor there is no
    program, OSError and RpcError.
    """
    if platform.machine() not in CODE:
        raise InnkeeperError(f"linux.namespaces[pid]: containers cannot share a pid namespace on {platform.machine()} yet")
    try:
        if shared is not None:
            _make_root(shared / ID / ROOT)
        else:
            _copy_root(agent)
        request = agent_pb2.CreateContainerRequest(container_id=ID, exec_id=ID, OCI=to_proto(document()))
        agent.create_container(request)
        try:
            agent.start_container(ID)
        except RpcError:
            with contextlib.suppress(RpcError):  # the first failure is the one to report
                agent.remove_container(ID)
            raise
    except BaseException:
        if shared is not None:
            shutil.rmtree(shared / ID, ignore_errors=True)
        raise


def _make_root(root: Path) -> None:
    root.mkdir(parents=True)
    for name in ("dev", "proc"):
        (root / name).mkdir()
    (root / PROGRAM).write_bytes(static_program(CODE[platform.machine()]))
    (root / PROGRAM).chmod(0o555)


def _copy_root(agent: Agent) -> None:
    root = f"{SHARE}/{ID}/{ROOT}"
    for name in ("dev", "proc"):
        agent.copy_file(agent_pb2.CopyFileRequest(path=f"{root}/{name}", file_mode=stat.S_IFDIR | 0o755, dir_mode=0o755))
    program = static_program(CODE[platform.machine()])
    agent.copy_file(
        agent_pb2.CopyFileRequest(
            path=f"{root}/{PROGRAM}", file_mode=stat.S_IFREG | 0o555, dir_mode=0o755, file_size=len(program), data=program
        )
    )


def document() -> Document:
    """Return its specification."""
    options = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": f"{SHARE}/{ID}/{ROOT}", "readonly": True},
        "process": {
            "args": [f"/{PROGRAM}"],
            "cwd": "/",
            "user": {"uid": NOBODY, "gid": NOBODY},
            "noNewPrivileges": True,
            "oomScoreAdj": -998,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": options},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
