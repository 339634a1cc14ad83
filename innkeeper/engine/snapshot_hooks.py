"""Programs of a container that run before and after its snapshots and forks.

    /etc/innkeeper/hooks/before-snapshot   before the container is frozen; a failure refuses it
    /etc/innkeeper/hooks/after-snapshot    once it runs again
    /etc/innkeeper/hooks/after-fork        in each fork, once it runs; a failure ends the fork

They are run as the container's own process is: its user, environment and working directory.
"""

import os
import signal
import time
from typing import Any

from innkeeper.client import Agent, RpcError
from innkeeper.engine import guest_agent, streams
from innkeeper.errors import InnkeeperError
from innkeeper.image import process_to_proto

FOLDER = "/etc/innkeeper/hooks"
BEFORE_SNAPSHOT, AFTER_SNAPSHOT, AFTER_FORK = "before-snapshot", "after-snapshot", "after-fork"
SECONDS = 10.0
"""Seconds that a hook may take."""
OUTPUT_MAX = 4096
"""Bytes of a hook's output that are kept for the error."""


def run(agent: Agent, container_id: str, spec: dict[str, Any], name: str) -> None:
    """Run a hook in a running container, if the container has it.

    Raises InnkeeperError unless it ends with status 0 in time.
    """
    path, exec_id = f"{FOLDER}/{name}", f"hook-{os.urandom(6).hex()}"
    document = {**spec["process"], "terminal": False, "args": [path]}
    document.pop("consoleSize", None)
    deadline = time.monotonic() + SECONDS
    try:
        agent.exec_process(container_id, exec_id, process_to_proto(document))
    except RpcError as error:
        if error.metadata.get("step") == "find program" and error.metadata.get("errno") == "ENOENT":
            return  # the container has no such hook
        raise InnkeeperError(f"hook {path}: {error.message}") from error
    process = guest_agent.Process(agent, container_id, exec_id)
    kept = bytearray()

    def keep(data: bytes) -> None:
        kept.extend(data)
        del kept[:-OUTPUT_MAX]

    process.close_stdin()
    pumps = [streams.output(process.read_stdout, keep, "hook"), streams.output(process.read_stderr, keep, "hook")]
    for pump in pumps:
        pump.join(max(0.0, deadline - time.monotonic()))
    in_time = not any(pump.is_alive() for pump in pumps)
    if not in_time:
        process.signal(signal.SIGKILL)
    try:
        status = agent.wait_process(container_id, exec_id, max(1.0, deadline - time.monotonic()))
    except RpcError:
        process.signal(signal.SIGKILL)
        process.release()
        in_time, status = False, 0
    if not in_time:
        raise InnkeeperError(f"hook {path}: it did not end within {SECONDS:.0f} s")
    if status:
        lines = bytes(kept).decode(errors="replace").strip().splitlines()
        raise InnkeeperError(f"hook {path}: it ended with status {status}{f': {lines[-1]}' if lines else ''}")
