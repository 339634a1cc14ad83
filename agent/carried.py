"""Work that is carried to its end, whatever becomes of who asked for it.

What changes the kernel's state and our record of it, with an await in between, must not be left there by a client's deadline. What can be
undone is undone; this is for the rest.
"""

from typing import TYPE_CHECKING, TypeVar

from agent import log, loop
from agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


async def carried(work: "Coroutine[Any, Any, T]", name: str) -> T:
    """Run `work` in a task of its own and return its result, or raise its error.

    If the caller is cancelled it goes on. An AgentError, OSError or TimeoutError that nobody waits for any more goes to the log.
    """
    failure: list[Exception] = []
    alone = False

    async def run() -> T | None:
        try:
            return await work
        except (AgentError, OSError, TimeoutError) as error:
            if alone:
                log.warn(f"{name}: {error}", "agent")
            failure.append(error)
            return None

    try:
        task = loop.spawn(run(), name=name)
        task.shielded = True
        result = await task.wait()
    except loop.Cancelled:
        alone = True
        raise
    if failure:
        raise failure[0]
    return result  # type: ignore[return-value]
