"""Types of the handlers and of their tables."""

from collections.abc import Awaitable, Callable
from typing import Any

Handler = Callable[[Any, Any], Awaitable[Any]]
"""`async def name(sandbox, request) -> response`.

The types of the two messages are those of the method under whose name a table lists the handler.
"""
Handlers = dict[str, Handler]
"""A table of handlers by method name."""
