"""The action `delete`: undo what a container has left on the host.

containerd runs it after every container, also after those whose shim has cleaned up, and waits for
it. For a container of a pod it touches nothing of the pod's.
"""

import os
import signal
import time
from pathlib import Path

from innkeeper.shim import cgroups, hooks, mounts, state
from innkeeper.shim.pb import containerd_pb2 as pb

KILLED = 128 + signal.SIGKILL


def delete(bundle: Path) -> bytes:
    """Remove what `bundle` has left. Return the answer for containerd. Raises OSError."""
    left = state.load(bundle)
    if left.shim is not None:
        _kill(*left.shim)
    cgroups.remove_all(map(Path, left.groups))
    for folder in left.folders:
        mounts.remove(Path(folder))
    hooks.after_loss(bundle.name, left)
    for socket in left.sockets:
        Path(socket).unlink(missing_ok=True)
    left.remove()
    now = time.time_ns()
    answer = pb.DeleteResponse(exit_status=KILLED, exited_at=pb.Timestamp(seconds=now // 10**9, nanos=now % 10**9))
    return bytes(answer.SerializeToString())


def _kill(pid: int, start_time: int) -> None:
    """Kill a shim that containerd has given up. Its VM ends with it.

    The start time is compared once the pidfd is open: from then on the id cannot mean another
    process.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # it has ended
    try:
        if state.start_time(pid) == start_time and pid != os.getpid():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass  # it has just ended
    finally:
        os.close(descriptor)
