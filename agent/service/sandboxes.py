"""Handlers of the calls about the sandbox as a whole."""

import os
from typing import TYPE_CHECKING

from agent import log, loop
from agent.errors import AgentError
from agent.linux.mount_table import mount_table
from agent.worker import run_in_worker
from innkeeper.wire.pb.agent_pb2 import OOMEvent
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handlers
    from innkeeper.wire.pb import agent_pb2, guest_pb2

STALE_SECONDS = 5.0
"""Seconds to wait for the daemon that serves the share."""
SHARED = "/run/kata-containers/shared/containers/"


async def create_sandbox(sandbox: "Sandbox", request: "agent_pb2.CreateSandboxRequest") -> Empty:
    """Set up what the containers of the sandbox share. Raises AgentError."""
    await sandbox.create(request)
    return Empty()


async def destroy_sandbox(sandbox: "Sandbox", request: "agent_pb2.DestroySandboxRequest") -> Empty:
    """Remove every container and release all storages. The agent then ends."""
    await sandbox.destroy()
    return Empty()


async def set_policy(sandbox: "Sandbox", request: "agent_pb2.SetPolicyRequest") -> Empty:
    """Apply a policy to all later calls.

    If a policy is in force already, this call had to pass it, like every other call.
    """
    sandbox.policies.set(request.policy)
    return Empty()


async def copy_file(sandbox: "Sandbox", request: "agent_pb2.CopyFileRequest") -> Empty:
    """Write a piece of a file that the host copies into the guest."""
    await sandbox.copies.copy(request)
    return Empty()


async def remove_file(sandbox: "Sandbox", request: "guest_pb2.RemoveFileRequest") -> Empty:
    """Remove a file or a folder that the host has copied into the guest."""
    await sandbox.copies.remove(request.path)
    return Empty()


async def get_oom_event(sandbox: "Sandbox", request: "agent_pb2.GetOOMEventRequest") -> OOMEvent:
    """Wait for the next container with a process that was killed out of memory, and return its id.

    At the end of the sandbox the call fails with an empty message, from which the shim recognises
    it.
    """
    try:
        return OOMEvent(container_id=await sandbox.oom_events.get())
    except loop.QueueClosed:
        raise AgentError("") from None


async def remove_stale_virtiofs_share_mounts(sandbox: "Sandbox", request: "agent_pb2.RemoveStaleVirtiofsShareMountsRequest") -> Empty:
    """Call stat(2) on every mount below the share, which makes the kernel drop the stale ones.

    A mount is stale when the host has unmounted its directory. The host's daemon can then release
    that directory. The work is done in a worker with a time limit: a daemon that does not answer
    must not make the host's stop of a container fail.
    """
    try:
        with loop.timeout(STALE_SECONDS):
            await run_in_worker(_look_at_shares, "stale mounts")
    except TimeoutError:
        log.warn(f"the share has not answered for {STALE_SECONDS} s", "mount")
    return Empty()


def _look_at_shares() -> None:
    """Call stat(2) on every mount below SHARED."""
    for entry in mount_table():
        if entry.mountpoint.startswith(SHARED):
            try:
                os.stat(entry.mountpoint)
            except OSError:
                continue  # stale: the kernel has dropped it now


OWN_METHODS: "Handlers" = {"RemoveFile": remove_file}
"""Methods of innkeeper.v1.Guest."""

METHODS: "Handlers" = {
    "CreateSandbox": create_sandbox,
    "DestroySandbox": destroy_sandbox,
    "SetPolicy": set_policy,
    "CopyFile": copy_file,
    "GetOOMEvent": get_oom_event,
    "RemoveStaleVirtiofsShareMounts": remove_stale_virtiofs_share_mounts,
}
