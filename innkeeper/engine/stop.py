"""End a container that another process owns."""

import os
import signal

from innkeeper.engine import guest_agent
from innkeeper.engine.records import RUNNING, Container
from innkeeper.errors import InnkeeperError

GRACE = 15.0
"""Seconds that an owner gets to clean up once its container has ended."""


def stop(container: Container, timeout: float) -> None:
    """Send the container's stop signal, then SIGKILL after `timeout` seconds.

    If the container does not end even then, its owner is ended.
    """
    if not container.alive:
        return
    if container.facts.status == RUNNING:
        try:
            with guest_agent.connected(container) as agent:
                process = guest_agent.Process(agent, container.id, container.id)
                process.signal(container.facts.stop_signal)
                if container.wait_ended(timeout):
                    return
                process.signal(signal.SIGKILL)
        except InnkeeperError:
            pass  # the guest is gone or does not answer: its owner is ended below
        if container.wait_ended(GRACE):
            return
    end_owner(container)


def end_owner(container: Container) -> None:
    """End the process that owns the container, and with it the VM: SIGTERM, then SIGKILL.

    Waits GRACE seconds after each. Raises InnkeeperError if the process survives both.
    """
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if not container.still_alive():
            return
        try:
            os.kill(container.owner, signum)
        except ProcessLookupError:
            pass
        if container.wait_ended(GRACE):
            return
    raise InnkeeperError(f"container {container.name}: its process {container.owner} did not end after SIGKILL")
