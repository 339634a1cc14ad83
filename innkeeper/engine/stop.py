"""End a container that another process owns."""

import os
import signal

from innkeeper.engine import control, guest_agent
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
                process = guest_agent.Process(agent, container.guest_id, container.guest_id)
                process.signal(container.facts.stop_signal)
                _resume(container)
                if container.wait_ended(timeout):
                    return
                process.signal(signal.SIGKILL)
        except InnkeeperError:
            pass  # the guest is gone or does not answer: its owner is ended below
        if container.wait_ended(GRACE):
            return
    end_owner(container)


def kill(container: Container, number: int) -> None:
    """Send a signal to the container's first process. Raises InnkeeperError."""
    with guest_agent.connected(container) as agent:
        guest_agent.Process(agent, container.guest_id, container.guest_id).signal(number)
    if number == container.facts.stop_signal:
        _resume(container)


def _resume(container: Container) -> None:
    """Resume a paused container, so that it takes the signal that ends it, as docker does.

    SIGKILL ends it as it is (cgroup.freeze).
    """
    if container.facts.paused:
        try:
            control.ask(container.folder, "resume")
        except InnkeeperError:
            pass  # somebody else has resumed it, or it has ended


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
