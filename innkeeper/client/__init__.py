"""The host's library for the agent: `connect`, `Client`, the typed `Agent`, and `copy_streams` for a process's standard streams."""

from innkeeper.client.agent import Agent
from innkeeper.client.client import Client, RpcError, connect
from innkeeper.client.streams import copy_streams

__all__ = ["Agent", "Client", "RpcError", "connect", "copy_streams"]
