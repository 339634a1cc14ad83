"""What the shim's harness writes down: when each QEMU was started, and what the shim and the agent said to each other.

A log of starts has a line a machine: `UNIX_SECONDS PID ARGUMENT...`, among the arguments the machine's vsock socket, `.../CID.sock`.
A recording has a JSON object a line: first `unix_time`, `cid`, `port`; then messages with `t`, seconds since then, `is` (request or
response), `call` (service/method) and `payload` (base64 of the ttRPC envelope).
"""

import base64
import json
import re
from collections.abc import Iterable

from innkeeper.errors import InnkeeperError
from innkeeper.wire import status
from innkeeper.wire.envelope import DecodeError, Response

CHECK = "grpc.Health/Check"
_START = re.compile(r"^(\d+\.\d+) \d+ .*\bid=vsockdev,path=\S*/(\d+)\.sock\b")
_RESIDENT = re.compile(r'^kata_agent_proc_status\{item="vmrss"\} (\d+(?:\.\d+)?)$', re.MULTILINE)


def starts(log: str) -> dict[int, float]:
    """CID -> Unix time of QEMU's start, in the order of the starts."""
    found = (_START.match(line) for line in log.splitlines())
    return {int(match[2]): float(match[1]) for match in found if match}


def first_check(recording: Iterable[str]) -> tuple[int, float] | None:
    """(CID, Unix time of the first answered Check), or None where no Check of this connection was answered.

    Reads no further than that: behind it the file may still be written. Raises InnkeeperError: this is no recording.
    """
    begun: tuple[int, float] | None = None
    try:
        for line in recording:
            message = json.loads(line)
            if begun is None:
                begun = int(message["cid"]), float(message["unix_time"])
            elif message["is"] == "response" and message["call"] == CHECK and _is_ok(message["payload"]):
                return begun[0], begun[1] + float(message["t"])
    except (ValueError, KeyError, TypeError) as error:
        raise InnkeeperError(f"a recording of the shim's calls cannot be read: {error!r}") from error
    return None


def _is_ok(payload: str) -> bool:
    try:
        return Response.decode(base64.b64decode(payload)).code == status.OK
    except DecodeError:
        return False


def resident_bytes(metrics: str) -> int:
    """Of the agent, out of the text of GetMetrics: Kata's agent and ours give /proc's VmRSS, in kB. Raises InnkeeperError."""
    found = _RESIDENT.search(metrics)
    if found is None:
        raise InnkeeperError('the agent\'s metrics have no kata_agent_proc_status{item="vmrss"}')
    return int(float(found[1])) * 1024
