"""The type of a handler."""

from collections.abc import Awaitable, Callable
from typing import Any

Handler = Callable[[Any, Any], Awaitable[Any]]
"""`async def name(sandbox, request) -> response`. A table of them pairs each method's name with its own message types."""
Handlers = dict[str, Handler]
