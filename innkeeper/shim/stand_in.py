"""A thread that stands for a container of a pod on the host: its id is the container's process id for containerd.

The processes of a pod's containers are in one VM, so QEMU's id would be that of all. But whoever
wants to join a namespace of a container names it by the id alone: CRI asks for the pid namespace of
one container as /proc/PID/ns/pid (`kubectl debug --target`). The thread waits in the pod's network
namespace, as QEMU does, because others look there too.
"""

import ctypes
import os
import queue
import threading

CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class StandIn:
    """The thread, until `close`. `id` is its thread id, for which /proc has a folder."""

    def __init__(self, network_namespace: str) -> None:
        """Start it in the network namespace of this path, or in that of this process if it is empty. Raises OSError."""
        self._end = threading.Event()
        ready: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._stand, args=(network_namespace, ready), name="stand-in", daemon=True)
        thread.start()
        if (error := ready.get()) is not None:
            raise error
        self.id = thread.native_id or os.getpid()

    def _stand(self, network_namespace: str, ready: "queue.SimpleQueue[OSError | None]") -> None:
        try:
            if network_namespace:
                _enter(network_namespace)
        except OSError as error:
            ready.put(error)
            return
        ready.put(None)
        self._end.wait()

    def close(self) -> None:
        """Let it end. May be called twice."""
        self._end.set()


def _enter(path: str) -> None:
    """Enter a network namespace with the calling thread. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(descriptor)
