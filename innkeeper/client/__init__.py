"""The host's library for the agent.

`connect` returns a `Client`, and the typed `Agent` calls its RPCs.
"""

from innkeeper.client.agent import Agent
from innkeeper.client.client import Client, RpcError, connect

__all__ = ["Agent", "Client", "RpcError", "connect"]
