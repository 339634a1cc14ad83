"""Looking up the user of an exec'd process by name, in the container's current account files."""

from typing import TYPE_CHECKING, Any

from agent.errors import Refused, WrongState
from agent.linux import procfs
from agent.linux.fd import OwnedFd
from agent.linux.openat2 import read_regular_file
from agent.worker import run_in_worker
from innkeeper.wire.passwd import AccountError, resolve_user

if TYPE_CHECKING:
    from agent.container.container import Container
    from innkeeper.wire.pb.agent_pb2 import StringUser

ACCOUNTS_MAX = 512 << 10
"""Bytes that are read of each account file. Both must fit into the worker's answer."""


async def resolve(container: "Container", wanted: "StringUser") -> dict[str, Any]:
    """Return `process.user` for names or numbers.

    Raises Refused for a user or group that the container does not have, WrongState if the container
    has ended, and StepFailed.
    """
    passwd, group = await _read_accounts(container)
    text = f"{wanted.uid}:{wanted.gid}" if wanted.gid else wanted.uid
    try:
        user = resolve_user(text, passwd, group, tuple(wanted.additionalGids))
    except AccountError as error:
        raise Refused("string_user", str(error)) from error
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


async def _read_accounts(container: "Container") -> tuple[bytes, bytes]:
    """Return the content of the container's /etc/passwd and /etc/group.

    They are read in a worker, because the container's root may be a slow share of the host.
    """
    if container.init.exit_status is not None:
        raise WrongState(f"container {container.id!r} has ended")  # the pid may have been reused
    try:
        root = procfs.open_link(f"{container.init.pid}/root")
    except OSError as error:
        raise WrongState(f"container {container.id!r} has ended") from error

    def work() -> bytes:
        passwd = read_regular_file(root, "/etc/passwd", ACCOUNTS_MAX)
        return b"%d\n" % len(passwd) + passwd + read_regular_file(root, "/etc/group", ACCOUNTS_MAX - 64)

    with OwnedFd(root):
        answer = await run_in_worker(work, "read account files", keep=(root,))
    length, _, data = answer.partition(b"\n")
    return data[: int(length)], data[int(length) :]
