"""The action `delete`: undo what a container has left on the host.

containerd runs it after every container, also after those whose shim has cleaned up, and waits for
it. For a container of a pod it touches nothing of the pod's.
"""

import signal
import time
from pathlib import Path

from innkeeper.shim import cgroups, hooks, mounts, state
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.vm.process_info import kill

KILLED = 128 + signal.SIGKILL


def delete(bundle: Path) -> bytes:
    """Remove what `bundle` has left. Return the answer for containerd. Raises OSError."""
    left = state.load(bundle)
    if left.shim is not None:
        pid, start_time = left.shim  # containerd has given it up; its VM ends with it
        kill(pid, lambda pid: state.start_time(pid) == start_time)
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
