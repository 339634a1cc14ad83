"""Users by name, for one more process of a container: looked up in the container's account files as they are now."""

import os
from typing import TYPE_CHECKING, Any

from agent.errors import Refused, WrongState
from agent.linux import procfs
from agent.linux.openat2 import read_file_in_root
from agent.worker import run_in_worker
from innkeeper.wire.accounts import AccountError, resolve_user

if TYPE_CHECKING:
    from agent.container.container import Container
    from innkeeper.wire.pb.agent_pb2 import StringUser

ACCOUNTS_MAX = 512 << 10
"""Bytes of each account file that are looked at: both have to fit into a worker's answer."""


async def resolve(container: "Container", wanted: "StringUser") -> dict[str, Any]:
    """Return `process.user` for names or numbers. Raises Refused for one that the container does not have, WrongState, StepFailed."""
    passwd, group = await _read_accounts(container)
    text = f"{wanted.uid}:{wanted.gid}" if wanted.gid else wanted.uid
    try:
        user = resolve_user(text, passwd, group, tuple(wanted.additionalGids))
    except AccountError as error:
        raise Refused("string_user", str(error)) from error
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


async def _read_accounts(container: "Container") -> tuple[bytes, bytes]:
    """In a worker: a file system of the container's may be the host's, and slow."""
    if container.init.exit_status is not None:
        raise WrongState(f"container {container.id!r} has ended")  # its process id may be another's by now
    try:
        root = procfs.open_link(f"{container.init.pid}/root")
    except OSError as error:
        raise WrongState(f"container {container.id!r} has ended") from error

    def work() -> bytes:
        passwd = read_file_in_root(root, "/etc/passwd", ACCOUNTS_MAX)
        return b"%d\n" % len(passwd) + passwd + read_file_in_root(root, "/etc/group", ACCOUNTS_MAX - 64)

    try:
        answer = await run_in_worker(work, "read account files", keep=(root,))
    finally:
        os.close(root)
    length, _, data = answer.partition(b"\n")
    return data[: int(length)], data[int(length) :]
