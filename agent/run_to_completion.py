"""Work that runs to its end even if the caller is cancelled.

Some operations change the kernel's state and then, after an await, the agent's record of it. If a
client's deadline cancelled them in between, the two would disagree for good. Operations that can be
undone undo themselves when cancelled. `run_to_completion` is for those that cannot.
"""

from typing import TYPE_CHECKING, TypeVar

from agent import log, loop
from agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")


async def run_to_completion(work: "Coroutine[Any, Any, T]", name: str, lock: loop.Lock | None = None) -> T:
    """Run `work` in a task of its own and return its result, or raise its error.

    The task goes on if the caller is cancelled. An AgentError, OSError or TimeoutError is then
    logged, because no caller is left to raise it to.

    `lock` is the one that `work` takes first. Its place in the order of arrival is the caller's:
    the task itself runs only after tasks that are ready already, and would queue behind later
    calls.
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
        if lock is not None:
            lock.reserve(task)
        result = await task.wait()
    except loop.Cancelled:
        alone = True
        raise
    if failure:
        raise failure[0]
    return result  # type: ignore[return-value]
