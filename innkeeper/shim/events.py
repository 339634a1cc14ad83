"""Events for containerd, forwarded in the order in which they were published.

One thread sends them, one after the other: a start must not overtake an exit. While containerd is
away they wait.
"""

import queue
import threading
import time
from typing import Any

from innkeeper.client import Client, RpcError
from innkeeper.dial import connect_unix
from innkeeper.shim import log
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.wire.pb import empty_pb2

SERVICE = "containerd.services.events.ttrpc.v1.Events"
TOPICS = {
    "TaskCreate": "/tasks/create",
    "TaskStart": "/tasks/start",
    "TaskExecAdded": "/tasks/exec-added",
    "TaskExecStarted": "/tasks/exec-started",
    "TaskExit": "/tasks/exit",
    "TaskOOM": "/tasks/oom",
    "TaskPaused": "/tasks/paused",
    "TaskResumed": "/tasks/resumed",
    "TaskDelete": "/tasks/delete",
}
CALL_SECONDS = 5.0
REDIAL_SECONDS = 0.1, 5.0
"""The shortest and the longest wait before containerd is dialled again."""
FLUSH_SECONDS = 5.0
"""Seconds that events get at the end of the shim."""


class Publisher:
    """The queue of events, and the thread that empties it."""

    def __init__(self, address: str, namespace: str) -> None:
        """Publish to the ttRPC socket at `address`, or nowhere without one."""
        self._address = address
        self.namespace = namespace
        self._queue: queue.SimpleQueue[pb.ForwardRequest | None] = queue.SimpleQueue()
        self._client: Client | None = None
        self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)
        self._thread.start()

    def publish(self, event: Any) -> None:
        """Add an event, one of the messages of TOPICS, to the queue."""
        name = type(event).__name__
        body = pb.Any(type_url=f"containerd.events.{name}", value=event.SerializeToString())
        envelope = pb.Envelope(timestamp=timestamp(time.time_ns()), namespace=self.namespace, topic=TOPICS[name], event=body)
        self._queue.put(pb.ForwardRequest(envelope=envelope))

    def close(self) -> None:
        """Send what is in the queue, for up to FLUSH_SECONDS."""
        self._queue.put(None)
        self._thread.join(FLUSH_SECONDS)

    def _send_all(self) -> None:
        while self._address and (request := self._queue.get()) is not None:
            wait, longest = REDIAL_SECONDS
            while not self._send(request):
                time.sleep(wait)
                wait = min(2 * wait, longest)
        if self._client is not None:
            self._client.close()

    def _send(self, request: pb.ForwardRequest) -> bool:
        """Send one event.

        Return False if containerd is away, and the event has to be sent again.
        """
        try:
            if self._client is None:
                self._client = Client(connect_unix(self._address, CALL_SECONDS))
            self._client.call(SERVICE, "Forward", request, empty_pb2.Empty, CALL_SECONDS)
        except OSError:
            return False
        except RpcError as error:
            if error.lost and self._client is not None:
                self._client.close()
                self._client = None
                return False
            log.error(f"event {request.envelope.topic}: {error}")
        return True


def timestamp(nanoseconds: int) -> pb.Timestamp:
    """Return a time since the epoch as a message."""
    return pb.Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)
