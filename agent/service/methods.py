"""The table of methods, and the common part of all calls: decoding, encoding, errors.

A handler is `async def name(sandbox, request) -> response`. The other modules of this package
contain them by topic.
"""

import sys
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from agent import log
from agent.errors import AgentError
from agent.service import containers, guest, guest_service, network, release, sandboxes, streams
from innkeeper.wire import error_info, messages, status
from innkeeper.wire.envelope import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sandbox import Sandbox
    from agent.service.dispatcher import Handler, Handlers

AGENT_SERVICE: "Handlers" = {
    **sandboxes.METHODS,
    **containers.METHODS,
    **streams.METHODS,
    **network.METHODS,
    **guest.METHODS,
}
LATE = {
    "agent.service.hotplug": ("OnlineCPUMem", "MemHotplugByProbe", "AddSwap", "AddSwapPath"),
    "agent.service.volumes": ("GetVolumeStats", "ResizeVolume", "UpdateEphemeralMounts"),
    "agent.service.iptables": ("GetIPTables", "SetIPTables"),
    "agent.service.metrics": ("GetMetrics",),
    "agent.service.diagnostics": ("GetDiagnosticData",),
}
"""Modules that are imported by the first call of one of their methods.

Few pods make these calls, and PID 1 stays small without the modules.
"""
LATE_OWN = {"agent.service.clone": ("PrepareTemplate", "ResumeClone")}
"""The same for innkeeper.v1.Guest."""
ABSENT = {
    "MemAgentMemcgSet": "there is no mem-agent here: the kernel's own reclaim, free page reporting and memory.high do its work",
    "MemAgentCompactSet": "there is no mem-agent here: the kernel compacts by itself",
}
"""Reasons for the methods that are not served, by method."""


class Methods:
    """Serves all methods except those of Health."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._table: dict[tuple[str, str], tuple[Handler, Any]] = {}
        """Handler and request class. The class is made at the first call, and is None before."""
        self._add("grpc.AgentService", AGENT_SERVICE)
        self._add("grpc.AgentService", _late_handlers(LATE))
        own = {**_late_handlers(LATE_OWN), **guest_service.METHODS, **release.METHODS, **guest.OWN_METHODS, **sandboxes.OWN_METHODS}
        self._add("innkeeper.v1.Guest", own)

    def _add(self, service: str, handlers: "Handlers") -> None:
        for method, handler in handlers.items():
            self._table[service, method] = handler, None

    def why_absent(self, service: str, method: str) -> str:
        """Return the reason why a method is not served, or "" if there is no special one."""
        return ABSENT.get(method, "") if service == "grpc.AgentService" else ""

    def serves(self, service: str, method: str) -> bool:
        """Return True if the method has a handler."""
        return (service, method) in self._table

    async def call(self, request: Request) -> Response:
        """Check the policy, run the handler, and return its response.

        An exception of any kind becomes a status: PID 1 outlives every handler.
        """
        try:
            handler, request_class = self._table[request.service, request.method]
            if request_class is None:
                request_class = messages.request_class(request.service, request.method)
                self._table[request.service, request.method] = handler, request_class
            message = request_class.FromString(request.payload)
            request.payload = b""  # free the bytes: the message has the data, and the call may last
            self._sandbox.check_policy(request.service, request.method, message)
            response = await handler(self._sandbox, message)
            return Response(payload=response.SerializeToString())
        except DecodeError as error:
            return Response(status.INVALID_ARGUMENT, f"{request.method}: undecodable request: {error}")
        except AgentError as error:
            log.debug(f"{request.method}: {error}", "rpc")
            return Response(error.code, str(error), details=_details(error))
        except TimeoutError as error:
            return Response(status.DEADLINE_EXCEEDED, f"{request.method}: {error}")
        except OSError as error:
            log.warn(f"{request.method}: {error}", "rpc")
            return Response(status.INTERNAL, f"{request.method}: {error}")
        except Exception as error:  # noqa: BLE001 - the edge of a call: the agent outlives any handler
            log.error(f"{request.method}: {type(error).__name__}: {error}", "rpc")
            sys.excepthook(type(error), error, error.__traceback__)
            return Response(status.INTERNAL, f"{request.method}: {type(error).__name__}: {error}")


def _details(error: AgentError) -> "list[tuple[str, bytes]]":
    """Return the machine-readable details of a failed call: (type, bytes) pairs."""
    return [error_info.encode(error.reason_code, error.metadata())] if error.reason_code else []


def _late_handlers(modules: "Mapping[str, tuple[str, ...]]") -> "Handlers":
    return {method: _late(module, method) for module, methods in modules.items() for method in methods}


def _late(module: str, method: str) -> "Handler":
    """Return a handler that imports `module` and runs its handler of `method`."""

    async def handler(sandbox: "Sandbox", request: Any) -> Any:
        __import__(module)
        return await sys.modules[module].METHODS[method](sandbox, request)

    return handler
