"""Debug shells: processes with all rights of the guest, outside of every container.

Calls address them as the processes of the container "guest". A release image ships no program that
they could run.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.errors import AlreadyExists, Refused
from agent.linux.capability import NAMES, capget
from agent.loop import shield

if TYPE_CHECKING:
    from agent.container.process import ContainerProcess

SHELL = "/bin/sh"
ENVIRONMENT = ("PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", "TERM=linux")
ALL_CAPABILITIES = ("bounding", "effective", "permitted")


class Shells:
    """The shells by exec id. Entries of `processes` are added and removed by methods only."""

    def __init__(self) -> None:
        self.processes: dict[str, ContainerProcess] = {}

    async def start(
        self, exec_id: str, args: Sequence[str] = (), env: Sequence[str] = (), cwd: str = "", *, terminal: bool, size: tuple[int, int]
    ) -> "ContainerProcess":
        """Start a program, by default a shell. `size` is (rows, columns) of its terminal.

        Without a program in the image it fails as an exec of a missing program does, or with
        Refused if no program is named. Raises AlreadyExists, Refused or StepFailed.
        """
        from agent.container.fd_set import FdSet
        from agent.container.init import child
        from agent.container.init.prepare import process_plan
        from agent.container.process import ContainerProcess
        from agent.container.spec.document import parse_process

        if exec_id in self.processes:
            raise AlreadyExists(f"process {exec_id!r} exists in the guest")
        if not args and not os.path.exists(SHELL):
            raise Refused("args", "this image has no shell; only the debug variant has")
        permitted = capget()[1]
        own = [name for number, name in enumerate(NAMES) if permitted >> number & 1]
        process = parse_process(
            {
                "args": list(args) or [SHELL],
                "env": list(env) or list(ENVIRONMENT),
                "cwd": cwd or "/",
                "terminal": terminal,
                "consoleSize": {"height": size[0], "width": size[1]},
                "capabilities": dict.fromkeys(ALL_CAPABILITIES, own),
            }
        )
        # As for an exec, the id is taken before the first await: a second call with it is refused.
        added = self.processes[exec_id] = ContainerProcess(exec_id, process.terminal)
        fd_set = FdSet()
        try:
            try:
                plan = process_plan(process, fd_set.add(added.control_pair()), None)
                plan.steps = child.EXEC_STEPS
                added.fork(plan, fd_set.fds)
            finally:
                fd_set.close()  # our copy of the child's end: the last close means that it runs
            await added.wait_created()
            await added.start()
        except BaseException:
            await shield(self.end(added))
            raise
        return added

    async def end(self, process: "ContainerProcess") -> None:
        """Kill a shell and free its id."""
        try:
            await process.kill()
        finally:
            process.close()
            self.processes.pop(process.exec_id, None)
