"""What a container has on the host, written to its bundle before it is made.

If the shim is killed, containerd runs the program once more with the action `delete`, and this file
is all that it knows. It may be of an older version of the shim, so what is missing in it is empty.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innkeeper import files

NAME = "state.json"


@dataclass
class State:
    """The folders, sockets and control groups of one container.

    Also the process that owns its VM, if it has one of its own. `shim` is that process's id and
    start time, which together name one process only. `hooks`: those for after the container's end
    are to run.
    """

    bundle: Path
    folders: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    shim: tuple[int, int] | None = None
    hooks: bool = False

    def add_folder(self, folder: Path) -> None:
        """Record a folder that is going to be made."""
        self.folders.append(str(folder))
        self.save()

    def own_vm(self, socket: Path, groups: Iterable[Path] = ()) -> None:
        """Record that this process serves this container's VM on `socket`, and the VM's cgroups."""
        self.groups += map(str, groups)
        self.sockets.append(str(socket))
        self.shim = (os.getpid(), start_time(os.getpid()))
        self.save()

    def save(self) -> None:
        """Write the file. Raises OSError."""
        with files.replaced(self.bundle / NAME) as part:
            fields = {"folders": self.folders, "sockets": self.sockets, "groups": self.groups, "shim": self.shim, "hooks": self.hooks}
            part.write_text(json.dumps({"version": 1, **fields}) + "\n")

    def clear(self) -> None:
        """Record that nothing is left to undo. A socket is there until this process ends."""
        self.folders, self.groups, self.shim = [], [], None
        if self.sockets:
            self.save()
        else:
            self.remove()

    def remove(self) -> None:
        """Remove the file."""
        (self.bundle / NAME).unlink(missing_ok=True)


def load(bundle: Path) -> State:
    """Return what the file says, and nothing if there is none or it cannot be read."""
    try:
        data: dict[str, Any] = json.loads((bundle / NAME).read_bytes())
        shim = (int(data["shim"][0]), int(data["shim"][1])) if data.get("shim") else None
        lists = {name: list(data.get(name, ())) for name in ("folders", "sockets", "groups")}
        return State(bundle, **lists, shim=shim, hooks=bool(data.get("hooks")))
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return State(bundle)


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since the boot (proc_pid_stat(5)).

    Raises OSError.
    """
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
