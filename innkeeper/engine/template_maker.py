"""The process that makes a template: boot a guest, load and use everything once, save it.

It runs at the lowest priority and is started with a pickled (VmConfig, HostPrograms) on standard
input. One key is made by one process at a time.
"""

import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from innkeeper import programs, progress
from innkeeper.client import Agent, RpcError, connect
from innkeeper.engine import sandbox
from innkeeper.errors import InnkeeperError
from innkeeper.image import Image, ImageConfig, RunOptions, process_to_proto, to_proto
from innkeeper.image.erofs import write_erofs
from innkeeper.image.run_plan import plan_run
from innkeeper.image.tree import Extent, Inode, new_directory
from innkeeper.vm import AGENT_PORT, CloneableVm, Disk, HostPrograms, VmConfig, registry, template
from innkeeper.wire.pb import agent_pb2

NOW = "--now"
"""The argument with which somebody waits for the template: no low priority, and an earlier failure does not count."""
BOOT_SECONDS = 300.0
PLACEHOLDER = 1 << 40
"""Size in bytes of the template's disks, sparse. A clone's file behind it may have any smaller size."""
SCRATCH_MIB = 64

PROGRAM = bytes.fromhex("833c2401 7509 b83c000000 31ff 0f05 b822000000 0f05 ebf7".replace(" ", ""))
"""x86-64 code of a program: `exit(0)` without arguments, else `for (;;) pause()`.

    cmp dword ptr [rsp], 1; jne wait; mov eax, 60; xor edi, edi; syscall; wait: mov eax, 34; syscall; jmp wait
"""
CONTAINER = "template"


def main(arguments: Sequence[str]) -> int:
    """Make the template that standard input asks for. Return 0 if it exists in the end."""
    config, host = pickle.load(sys.stdin.buffer)
    progress.be_quiet()
    if NOW not in arguments:
        _lowest_priority()
    return 0 if make(config, host, again=NOW in arguments) else 1


def make(config: VmConfig, host: HostPrograms, *, again: bool) -> bool:
    """Make the template for clones like `config`, unless there is one or another process makes it.

    After a failure a short time ago only with `again`. Return whether there is one. A failure is
    remembered (`template.recent_failure`).
    """
    entry = registry.create()
    try:
        disks = (Disk(_image_disk(entry.folder), read_only=True), Disk(_scratch_disk(entry.folder), volatile=True))
        with CloneableVm(replace(config, disks=disks), host, entry) as vm:
            key = vm.template_key()
            with template.making(key) as mine:
                if mine and not template.exists(key) and (again or not template.recent_failure(key)):
                    _make(vm, key)
                return template.exists(key)
    finally:
        entry.release()


def _make(vm: CloneableVm, key: str) -> None:
    try:
        vm.start()
        vm.wait_ready(BOOT_SECONDS)
        with connect(vm.address(AGENT_PORT), timeout=BOOT_SECONDS) as client:
            _use_everything(Agent(client, BOOT_SECONDS), vm)
        vm.publish(key)
    except (InnkeeperError, RpcError, OSError) as error:
        template.note_failure(key, str(error))
        return
    template.prune(keep=key)


def _use_everything(agent: Agent, vm: CloneableVm) -> None:
    """Load everything that serves containers and use it once, with a container that is removed.

    Nothing of that remains but code and caches. No sandbox is created: its state would remain.
    """
    agent.reseed_random(os.urandom(64))
    if vm.config.network:
        sandbox.configure_network(agent)
    image = Image(CONTAINER, "", ImageConfig(), vm.config.disks[0].path, None, None)
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
    agent.prepare_template()


def _image_disk(folder: Path) -> Path:
    """Write a disk with an image that contains one program."""
    program = folder / "program"
    program.write_bytes(_elf(PROGRAM))
    size = program.stat().st_size
    root = new_directory()
    root.children[b"program"] = Inode(stat.S_IFREG | 0o755, size=size, extents=[Extent(0, size, program, 0)])
    for name in (b"dev", b"etc", b"proc", b"sys"):
        root.children[name] = new_directory()
    path = folder / "image.erofs"
    write_erofs(root, path, bytes(16))
    os.truncate(path, PLACEHOLDER)
    return path


def _elf(code: bytes) -> bytes:
    """Return a static program of one segment (elf(5))."""
    base, header = 0x400000, 64 + 56
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    ehdr = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = header + len(code)
    return ehdr + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096) + code


def _scratch_disk(folder: Path) -> Path:
    """Write a disk with an empty ext4, as a run has it, but small."""
    path = folder / "scratch.img"
    with path.open("wb") as file:
        file.truncate(PLACEHOLDER)
    argv = [str(programs.require("mke2fs")), "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", str(path), f"{SCRATCH_MIB}M"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InnkeeperError(f"mke2fs failed: {done.stderr.strip()}")
    return path


def _lowest_priority() -> None:
    """Leave the processors to everybody else: nice(2), and that of our session (sched(7), autogroup)."""
    os.nice(19)
    try:
        Path("/proc/self/autogroup").write_text("19")
    except OSError:
        pass  # this kernel has none


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
