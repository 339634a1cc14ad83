"""The host's library for the agent.

`connect` returns a `Client`, the typed `Agent` calls its RPCs, and `copy_streams` copies the
standard streams of a process.
"""

from innkeeper.client.agent import Agent
from innkeeper.client.client import Client, RpcError, connect
from innkeeper.client.streams import copy_streams

__all__ = ["Agent", "Client", "RpcError", "connect", "copy_streams"]
