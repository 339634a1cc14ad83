"""Handler of SetPolicy."""

from typing import TYPE_CHECKING

from agent.policy.policy_set import Book
from innkeeper.wire.pb.empty_pb2 import Empty

if TYPE_CHECKING:
    from agent.sandbox import Sandbox
    from agent.service.dispatch import Handlers
    from innkeeper.wire.pb import agent_pb2


async def set_policy(sandbox: "Sandbox", request: "agent_pb2.SetPolicyRequest") -> Empty:
    """Apply a policy to all later calls.

    If a policy is in force already, this call had to pass it, like every other call.
    """
    book = sandbox.rules or Book()
    book.set(request.policy)
    sandbox.rules = book
    return Empty()


METHODS: "Handlers" = {"SetPolicy": set_policy}
