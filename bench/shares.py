"""virtio-fs beside 9p: what carries a folder of the host, measured by turns.

Two guests run at the same time, each with one of the two. `run -v` uses virtio-fs. Beside these
there is what a folder costs a run from a template.
"""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from bench.calls import Containers
from bench.commands import CLONED, Ours
from bench.figures import Section, figure, ratio, throughput
from bench.guest import holding, start
from bench.interleave import shuffled, timed
from innkeeper.engine.host import prepare, virtual_machine
from innkeeper.guest import Artifacts
from innkeeper.image import Image
from innkeeper.image.volume_shares import SANDBOX
from innkeeper.vm import HostPrograms, Share, VirtualMachine, VmConfig
from innkeeper.wire.pb import agent_pb2

TAG = "bench"
MOUNT_POINT = f"{SANDBOX}/{TAG}"
CONTAINER = "bench-share"
FILES = 200
VIRTIO_FS, NINE_P = "virtio-fs", "9p"
STORAGES = {
    VIRTIO_FS: agent_pb2.Storage(driver="virtio-fs", source=TAG, fstype="virtiofs", mount_point=MOUNT_POINT),
    NINE_P: agent_pb2.Storage(
        driver="9p",
        source=TAG,
        fstype="9p",
        mount_point=MOUNT_POINT,
        options=["trans=virtio,version=9p2000.L,cache=mmap", "msize=524288"],
    ),
}


def section(artifacts: Artifacts, image: Image, folder: Path, megabytes: int, rounds: int, accel: str | None) -> Section:
    """Return the section of a large file and of many small ones over both, `rounds` times each."""
    result = Section("a folder of the host", note=f"by turns, a file of {megabytes} MiB, {FILES} empty files")
    with ExitStack() as stack:
        guests = {name: stack.enter_context(_guest(name, artifacts, image, folder / name, accel)) for name in STORAGES}
        for title, measure in (
            ("writing", SharedFolder.write),
            ("reading", SharedFolder.read),
            ("reading it again", SharedFolder.read_again),
        ):
            rates = shuffled({name: partial(measure, shared, megabytes) for name, shared in guests.items()}, rounds)
            result.figures += [throughput(f"{name}: {title}", rates[name]) for name in guests]
        seconds = shuffled({name: timed(shared.small_files) for name, shared in guests.items()}, rounds)
        result.figures += [figure(f"{name}: making, listing and removing small files", "s", seconds[name]) for name in guests]
    return result


def runs(reference: str, folder: Path, rounds: int, accel: str | None) -> Section:
    """Return the section of `run` from a template without a folder and with one."""
    ours = Ours(accel)
    command = ("--rm", "--start", "template")
    beside = "run --rm -v, from a template"
    times = shuffled(
        {
            CLONED: timed(lambda: ours.run(*command, reference, "true")),
            beside: timed(lambda: ours.run(*command, "-v", f"{folder}:/mnt", reference, "true")),
        },
        rounds,
    )
    rows = [
        *(figure(name, "s", times[name]) for name in (CLONED, beside)),
        ratio("with a folder / without", times[beside], times[CLONED], None),
    ]
    return Section("a container with a folder of the host, end to end", rows, note="by turns")


class SharedFolder:
    """A folder of the host, and the container that has it at /mnt."""

    def __init__(self, host: Path, containers: Containers) -> None:
        self.host = host
        self.containers = containers
        self._numbers = count()
        self._read = ""

    def write(self, megabytes: int) -> float:
        """Return the MB/s of writing a new file, to the host's disk."""
        return self._rate(megabytes, f"if=/dev/zero of=/mnt/written-{next(self._numbers)} conv=fsync count={megabytes}")

    def read(self, megabytes: int) -> float:
        """Return the MB/s of reading a file that the host has just written."""
        self._read = f"read-{next(self._numbers)}"
        (self.host / self._read).write_bytes(bytes(megabytes << 20))
        return self.read_again(megabytes)

    def read_again(self, megabytes: int) -> float:
        """Return the MB/s of reading the file that `read` has read."""
        return self._rate(megabytes, f"if=/mnt/{self._read} of=/dev/null count={megabytes}")

    def small_files(self) -> None:
        """Make, list and remove files."""
        script = f"cd /mnt && mkdir d && for i in $(seq {FILES}); do : > d/$i; done && ls -l d > /dev/null && rm -r d"
        self.containers.exec(CONTAINER, ["/bin/busybox", "sh", "-c", script])

    def _rate(self, megabytes: int, operands: str) -> float:
        seconds = timed(lambda: self.containers.exec(CONTAINER, ["/bin/dd", "bs=1M", *operands.split()]))()
        return (megabytes << 20) / 1e6 / seconds


@contextmanager
def _guest(name: str, artifacts: Artifacts, image: Image, folder: Path, accel: str | None) -> Iterator[SharedFolder]:
    """Context manager: boot a guest with a folder of the host by virtio-fs or 9p."""
    shared = folder / "shared"
    shared.mkdir(parents=True)
    shares, make = ((Share.of(TAG, shared),), virtual_machine) if name == VIRTIO_FS else ((), partial(_with_9p, shared))
    with holding(artifacts, image, folder, accel, make, machine_type="q35", shares=shares) as guest:
        bind = {"destination": "/mnt", "type": "bind", "source": MOUNT_POINT, "options": ["rbind"]}
        yield SharedFolder(shared, start(guest.agent, image, CONTAINER, storages=[STORAGES[name]], mounts=[bind]))


def _with_9p(shared: Path, config: VmConfig) -> VirtualMachine:
    """Return a VM whose QEMU serves `shared` itself: a script adds the device to its arguments."""
    host = prepare(config.kernel, accelerator=config.accel, shares=False)
    device = ("-fsdev", f"local,id=shared,path={shared},security_model=none", "-device", f"virtio-9p-pci,fsdev=shared,mount_tag={TAG}")
    program = shared.parent / "qemu"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(str(host.qemu))} "$@" {shlex.join(device)}\n')
    program.chmod(0o755)
    return VirtualMachine(config, HostPrograms(qemu=program, setpriv=host.setpriv))
