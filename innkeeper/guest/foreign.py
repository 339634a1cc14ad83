"""Run programs of another architecture by QEMU's user mode emulation, through binfmt_misc.

    emulator = find("aarch64")      # an Emulator, or None if this host's list has a handler already
    emulator.command(["mmdebstrap", ...])

Where the host's binfmt_misc has a handler (Debian's qemu-user-static registers one), programs run
as any others. Else root registers the emulator in a user namespace that only the program is in
(`builder_scripts/foreign_run.py`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError

LIST = Path("/proc/sys/fs/binfmt_misc")
PROGRAM = Path(__file__).parent / "builder_scripts" / "foreign_run.py"


@dataclass(frozen=True)
class Machine:
    """An architecture whose programs can be emulated.

    * `debian`: Debian's name for it
    * `magic`, `mask`: how its programs begin, in hexadecimal digits (elf(5); the type is ET_EXEC or
      ET_DYN)
    """

    debian: str
    magic: str
    mask: str


MACHINES = {
    "aarch64": Machine(
        "arm64",
        "7f454c460201010000000000000000000200b700",
        "ffffffffffffff00fffffffffffffffffeffffff",
    )
}


@dataclass(frozen=True)
class Emulator:
    """QEMU's user mode emulation for a machine, registered for one command at a time."""

    machine: Machine
    interpreter: Path

    def command(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        root: Sequence[str] = (),
        release: Sequence[str] = (),
        binds: Sequence[tuple[Path, str, bool]] = (),
    ) -> list[str]:
        """Return the command line that runs `argv`, which may start programs of the machine.

        `root` is a command that mounts the folder to run in and prints its path, `release` one that
        unmounts it. `binds` are a path of the host, one in that folder, and whether it is
        read-only.
        """
        plan = {
            "argv": list(argv),
            "env": dict(env),
            "root": list(root) or None,
            "release": list(release),
            "binds": [(str(source), target, read_only) for source, target, read_only in binds],
        }
        machine = self.machine
        return [sys.executable, "-I", "-S", str(PROGRAM), str(self.interpreter), machine.magic, machine.mask, json.dumps(plan)]


def find(architecture: str) -> Emulator | None:
    """Return what runs programs of `architecture`, or None if they run as any others.

    Raises InnkeeperError, with the reason, if they cannot be run here.
    """
    machine = MACHINES[architecture]
    if has_handler(machine):
        return None
    if os.geteuid() != 0:
        raise InnkeeperError(
            f"programs of {architecture} cannot be run here: binfmt_misc has no handler for them, and only root can use one of its own",
            hint="install qemu-user-static, which registers one, or build as root",
        )
    emulator = Emulator(machine, programs.require("qemu-aarch64-static"))
    tried = subprocess.run(emulator.command(["true"], os.environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        reason = (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]
        raise InnkeeperError(
            f"programs of {architecture} cannot be run here: {reason}",
            hint="install qemu-user-static and binfmt-support: they register a handler with this host's kernel",
        )
    return emulator


def has_handler(machine: Machine, entries: Path = LIST) -> bool:
    """Return whether the kernel's list has a handler that also works in other roots (flag F)."""
    for entry in sorted(entries.iterdir()) if entries.is_dir() else ():
        if entry.name in ("register", "status"):
            continue
        fields = dict(line.partition(" ")[::2] for line in entry.read_text().splitlines())
        if "enabled" in fields and fields.get("magic") == machine.magic and "F" in fields.get("flags:", ""):
            return True
    return False
