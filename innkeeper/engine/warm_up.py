"""A throw-away container, by which a guest has loaded and used everything that containers need.

A template is saved after it, and a VM of the pool waits after it: there the emulator has translated
the code as well, which takes most of the time in a fresh clone under TCG.
"""

import os
import signal
import stat
from pathlib import Path

from innkeeper.client import Agent
from innkeeper.engine import scratch
from innkeeper.errors import InnkeeperError
from innkeeper.image import Image, ImageConfig, RunOptions, process_to_proto, to_proto
from innkeeper.image.elf import static_program
from innkeeper.image.erofs import write_erofs
from innkeeper.image.run_plan import plan_run
from innkeeper.image.tree import Extent, Inode, new_directory
from innkeeper.vm import Disk
from innkeeper.wire.pb import agent_pb2

PLACEHOLDER = 1 << 40
"""Size in bytes of the template's disks, sparse.

A clone's file behind it may have any smaller size.
"""
SCRATCH_MIB = 64

PROGRAM = bytes.fromhex("833c2401 7509 b83c000000 31ff 0f05 b822000000 0f05 ebf7".replace(" ", ""))
"""x86-64 code of a program: `exit(0)` without arguments, else `for (;;) pause()`.

    cmp dword ptr [rsp], 1; jne wait; mov eax, 60; xor edi, edi; syscall
    wait: mov eax, 34; syscall; jmp wait
"""
CONTAINER = "template"


def disks(folder: Path) -> tuple[Disk, Disk]:
    """Make the disks of such a container in `folder`: image and scratch disk, as `run` has them."""
    writable = scratch.make_disk(folder, PLACEHOLDER, filesystem_mib=SCRATCH_MIB)
    return Disk(_image_disk(folder), read_only=True), Disk(writable, volatile=True)


def use_everything(agent: Agent) -> None:
    """Load everything that serves containers and use it once, with a container that is removed.

    Nothing of that remains but code and caches. No sandbox is created: its state would remain.
    """
    image = Image(CONTAINER, "", ImageConfig(), Path(), passwd=None, group=None)
    run = plan_run(image, RunOptions(args=["/program", "wait"]), CONTAINER)
    for name, path in run.copied_files.items():
        agent.copy_file(agent_pb2.CopyFileRequest(path=path, file_size=1, file_mode=0o100644, dir_mode=0o755, data=name[:1].encode()))
    agent.create_container(
        agent_pb2.CreateContainerRequest(container_id=CONTAINER, exec_id=CONTAINER, storages=run.storages, OCI=to_proto(run.document))
    )
    agent.start_container(CONTAINER)
    process = dict(run.document["process"], args=["/program"])  # type: ignore[call-overload]
    agent.exec_process(CONTAINER, "exec", process_to_proto(process))
    if agent.read_stdout(CONTAINER, "exec", 1) or (status := agent.wait_process(CONTAINER, "exec")):
        raise InnkeeperError(f"the template's program ended with status {status}")
    agent.stats_container(CONTAINER)
    agent.signal_process(CONTAINER, CONTAINER, signal.SIGKILL)
    agent.wait_process(CONTAINER, CONTAINER)
    agent.remove_container(CONTAINER)


def _image_disk(folder: Path) -> Path:
    """Write a disk with an image that contains one program."""
    program = folder / "program"
    program.write_bytes(static_program(PROGRAM))
    size = program.stat().st_size
    root = new_directory()
    root.children[b"program"] = Inode(stat.S_IFREG | 0o755, size=size, extents=[Extent(0, size, program, 0)])
    for name in (b"dev", b"etc", b"proc", b"sys"):
        root.children[name] = new_directory()
    path = folder / "image.erofs"
    write_erofs(root, path, bytes(16))
    os.truncate(path, PLACEHOLDER)
    return path
