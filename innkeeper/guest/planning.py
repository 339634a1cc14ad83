"""A plan: the steps of a build with their ids, without making anything.

    plan = PlanningStore(paths.store_root())
    pipeline.plan_steps(guest, plan, project)
    for step in plan.steps: ...

The build runs as always, on a store that notes its steps instead of making them. The id of a step
depends on its inputs. Where an input is the content of a step that is not made yet (the packages of
a builder), the id is not known before, and is None.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innkeeper.guest.pins import Pins
from innkeeper.guest.store import JSON, UNKNOWN, Store, step_hash

NO_ID = "unknown"
"""What a folder has in its name in place of an id that is not known."""


@dataclass(frozen=True)
class PlannedStep:
    """A step of a build: its id, or None if that is not known yet, and whether the store has it."""

    name: str
    id: str | None
    in_store: bool

    @property
    def folder(self) -> str:
        """Return the name of the step's folder in the store."""
        return f"{self.name}-{self.id[:16] if self.id else NO_ID}"


class PlanningStore(Store):
    """A store that makes nothing. It notes each step once, in the order of the build."""

    only_plans = True

    def __init__(self, root: Path, pins: Pins | None = None) -> None:
        super().__init__(root, pins)
        self._steps: dict[tuple[str, str], PlannedStep] = {}

    @property
    def steps(self) -> list[PlannedStep]:
        """Return the steps that were asked for."""
        return list(self._steps.values())

    def step(self, name: str, inputs: Mapping[str, JSON], make: Callable[[Path], None]) -> Path:
        step_id = None if _is_unknown(dict(inputs)) else step_hash(name, inputs)
        planned = PlannedStep(name, step_id, step_id is not None and self.has(name, inputs))
        self._steps.setdefault((name, step_hash(name, inputs)), planned)
        return self.root / planned.folder

    def made(self, result: Path) -> bool:
        return result.is_dir()


class InOrder(Executor):
    """An executor that runs a task at once: a plan lists its steps in the same order each time."""

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **options: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(task(*arguments, **options))
        return future


def _is_unknown(value: JSON) -> bool:
    """Return whether an input is, or names, something that is not known yet."""
    if isinstance(value, dict):
        return any(map(_is_unknown, value.values()))
    if isinstance(value, list):
        return any(map(_is_unknown, value))
    return isinstance(value, str) and (UNKNOWN in value or value.endswith(f"-{NO_ID}"))
