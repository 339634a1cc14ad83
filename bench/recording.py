"""Parse the records of the shim's harness: the starts of QEMU, and the shim's calls to the agent.

The log of starts has a line per VM: `UNIX_SECONDS PID ARGUMENT...`. One of the arguments has the
path of the VM's vsock socket, `.../CID.sock`.

A recording has a JSON object per line. The first has `unix_time`, `cid` and `port`. The others are
messages with `t` (seconds since `unix_time`), `is` (request or response), `call` (service/method)
and `payload` (base64 of the ttRPC envelope).
"""

import base64
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from innkeeper.errors import InnkeeperError
from innkeeper.wire import status
from innkeeper.wire.envelope import DecodeError, Response

CHECK, CREATE_SANDBOX = "grpc.Health/Check", "grpc.AgentService/CreateSandbox"
_START = re.compile(r"^(\d+\.\d+) (\d+) .*\bid=vsockdev,path=\S*/(\d+)\.sock\b")
_RESIDENT = re.compile(r'^kata_agent_proc_status\{item="vmrss"\} (\d+(?:\.\d+)?)$', re.MULTILINE)


class Start(NamedTuple):
    """A start of QEMU: its Unix time, and its process id."""

    moment: float
    pid: int


def starts(log: str) -> dict[int, Start]:
    """Return each start of QEMU by CID, in the order of the starts."""
    found = (_START.match(line) for line in log.splitlines())
    return {int(match[3]): Start(float(match[1]), int(match[2])) for match in found if match}


def first_answer(recording: Iterable[str], call: str) -> tuple[int, float] | None:
    """Return (CID, Unix time of the first answered `call`), or None if none was answered.

    Lines behind that answer are not read, because the file may still be written to. Raises
    InnkeeperError if the file is not a recording.
    """
    start: tuple[int, float] | None = None
    try:
        for line in recording:
            message = json.loads(line)
            if start is None:
                start = int(message["cid"]), float(message["unix_time"])
            elif message["is"] == "response" and message["call"] == call and _is_ok(message["payload"]):
                return start[0], start[1] + float(message["t"])
    except (ValueError, KeyError, TypeError) as error:
        raise InnkeeperError(f"a recording of the shim's calls cannot be read: {error!r}") from error
    return None


def _is_ok(payload: str) -> bool:
    try:
        return Response.decode(base64.b64decode(payload)).code == status.OK
    except DecodeError:
        return False


def resident_bytes(metrics: str) -> int:
    """Return the agent's resident memory in bytes, from the text of GetMetrics.

    Kata's agent and ours report VmRSS of /proc, in kB. Raises InnkeeperError if it is missing.
    """
    found = _RESIDENT.search(metrics)
    if found is None:
        raise InnkeeperError('the agent\'s metrics have no kata_agent_proc_status{item="vmrss"}')
    return int(float(found[1])) * 1024
