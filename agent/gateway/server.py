"""The gRPC server: the services and their handlers."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from agent.gateway.agent_client import Agent, Failed
from agent.gateway.attach import attach
from agent.gateway.events import events
from agent.gateway.health import Health
from agent.gateway.unary import Unary, abort
from innkeeper.wire import messages
from innkeeper.wire.grpc import MAX_MESSAGE
from innkeeper.wire.pb import agent_pb2, guest_pb2
from innkeeper.wire.pb import health_pb2 as own_health_pb2

MAX_CALLS = 4096
"""Calls at one time. Further ones are refused with RESOURCE_EXHAUSTED."""
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.so_reuseport", 0),
)
SERVICES = tuple(name for module in (agent_pb2, own_health_pb2, guest_pb2) for name in module.SERVICES)
STANDARD = (health.SERVICE_NAME, reflection.SERVICE_NAME)


def run(agent_socket: str, grpc_socket: str, ready: int) -> None:
    """Serve until killed.

    One byte is written to the descriptor `ready` when a client can connect. Then it is closed.
    """
    asyncio.run(_serve(Agent(agent_socket), grpc_socket, ready))


async def _serve(agent: Agent, grpc_socket: str, ready: int) -> None:
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    handlers = Handlers(agent)
    server.add_generic_rpc_handlers(tuple(handlers.service(name) for name in SERVICES))
    standard = Health(agent)
    for name in (*SERVICES, *STANDARD):
        await standard.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(standard, server)
    reflection.enable_server_reflection((*SERVICES, *STANDARD), server, pool=Descriptors())
    server.add_insecure_port(f"unix:{grpc_socket}")
    await server.start()
    os.write(ready, b"\n")
    os.close(ready)
    await server.wait_for_termination()


class Descriptors:
    """The descriptor pool for reflection.

    It holds the descriptors of the agent's services and those of the standard services. upb's pool
    does not find the file of a method by the name of the method, which clients ask for too.
    """

    def __init__(self) -> None:
        self._pool = messages.pool()
        for module in (health_pb2, reflection_pb2):
            self._pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """Return the file of a message, service or method. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            return self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file


class Handlers:
    """Makes the handlers from the descriptors.

    Unary methods are passed on. Each streaming method has a handler in this program.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._unary = Unary(agent)

    def service(self, name: str) -> Any:
        """Return the handlers of one of the agent's services, for grpcio."""
        descriptor = messages.pool().FindServiceByName(name)
        methods = {}
        for method in descriptor.methods:
            streaming = method.client_streaming or method.server_streaming
            methods[method.name] = self._streaming(method.full_name) if streaming else self._unary.handler(name, method.name)
        return grpc.method_handlers_generic_handler(name, methods)

    def _streaming(self, method: str) -> Any:
        """Return the handler of a streaming method, given its full name."""
        return {
            "innkeeper.v1.Guest.Attach": grpc.stream_stream_rpc_method_handler(self._attach),
            "innkeeper.v1.Guest.Events": grpc.unary_stream_rpc_method_handler(self._events),
        }[method]

    async def _attach(self, requests: "AsyncIterator[bytes]", context: Any) -> None:
        try:
            await attach(self._agent, requests, context)
        except Failed as error:
            await abort(context, error)

    async def _events(self, request: bytes, context: Any) -> None:
        try:
            await events(self._agent, request, context)
        except Failed as error:
            await abort(context, error)
