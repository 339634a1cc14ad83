"""Finds the handler of a request.

Check and Version are answered here, with handwritten messages, so that they work before anything
else is loaded.
"""

from agent import KATA_AGENT_VERSION, KATA_API_VERSION, log
from agent.loop import Event, timeout
from agent.service.server import Answer
from innkeeper.wire import status
from innkeeper.wire.envelope import Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from agent.service.methods import Methods
    from innkeeper.wire.envelope import Request

    Handler = Callable[[Any, Any], Awaitable[Any]]
    """`async def name(sandbox, request) -> response`, with the messages of the method's name."""
    Handlers = dict[str, Handler]
    """A table of handlers by method name."""

ONLY_WAIT = frozenset(("ReadStdout", "ReadStderr", "WaitProcess", "GetOOMEvent", "NextEvents", "ReleaseProcess"))
"""Calls that change nothing. They are cancelled when their client is gone."""

_SERVING = b"\x08\x01"
_VERSION = b"".join(tag + bytes((len(text),)) + text.encode() for tag, text in ((b"\x0a", KATA_API_VERSION), (b"\x12", KATA_AGENT_VERSION)))


class Dispatcher:
    """Answers the calls to Health. Other calls wait until the rest of the agent is loaded."""

    def __init__(self) -> None:
        self.checked = Event()
        """Set at the first call, which is the time to load the rest: usually a Check."""
        self.loaded = Event()
        self.methods: Methods | None = None

    def answer(self, request: "Request") -> Answer:
        """Return the answer to a request, or the coroutine that makes it.

        An unknown method is refused at once if the table of methods is loaded, else when it is.
        """
        if request.service == "grpc.Health":
            if request.method == "Check":
                self.checked.set()
                return Answer(Response(payload=_SERVING))
            if request.method == "Version":
                return Answer(Response(payload=_VERSION))
        self.checked.set()
        if self.methods is not None and not self.methods.serves(request.service, request.method):
            return Answer(_unimplemented(request, self.methods.why_absent(request.service, request.method)))
        return Answer(call=lambda: self._call(request), abandon=request.method in ONLY_WAIT)

    async def _call(self, request: "Request") -> Response:
        """Wait until the agent is loaded, then run the handler.

        The deadline of the client covers both.
        """
        try:
            with timeout(request.timeout_nano / 1e9 if request.timeout_nano > 0 else None):
                await self.loaded.wait()
                assert self.methods is not None
                if not self.methods.serves(request.service, request.method):
                    return _unimplemented(request, self.methods.why_absent(request.service, request.method))
                return await self.methods.call(request)
        except TimeoutError:
            log.warn(f"{request.method}: client's deadline of {request.timeout_nano} ns passed", "rpc")
            return Response(status.DEADLINE_EXCEEDED, "timeout")


def _unimplemented(request: "Request", why: str) -> Response:
    return Response(status.UNIMPLEMENTED, f"/{request.service}/{request.method} is not supported{': ' if why else ''}{why}")
