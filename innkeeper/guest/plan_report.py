"""What `build --print` prints: the resolved configuration, and the steps with their ids."""

import json
from pathlib import Path
from typing import Any

from innkeeper import paths
from innkeeper.errors import InnkeeperError
from innkeeper.guest.config import PARTS, Guest
from innkeeper.guest.config_file import as_toml
from innkeeper.guest.kernel_choice import config_changes
from innkeeper.guest.pipeline import plan_steps
from innkeeper.guest.planning import PlannedStep, PlanningStore
from innkeeper.guest.store import Store

IN_STORE, TO_MAKE, NOT_KNOWN = "in the store", "to be made", "to be made, its id is known when the steps before are made"


def report(guest: Guest, *, as_json: bool, store: Store | None = None, project: Path | None = None) -> str:
    """Return the text for `guest`. Nothing is made or written."""
    store = store or Store(paths.store_root())
    plan = PlanningStore(store.root, store.pins)
    steps = plan_steps(guest, plan, project)
    if as_json:
        return json.dumps(document(guest, steps), indent=1) + "\n"
    width = max(len(step.folder) for step in steps)
    lines = [f"# {step.folder:{width}}  {_state(step)}" for step in steps]
    return "\n".join([as_toml(guest), "# Steps:", *lines]) + "\n"


def document(guest: Guest, steps: list[PlannedStep]) -> dict[str, Any]:
    """Return the same as a JSON document.

    It has `configuration`, and `steps` with `name`, `id` (or null) and `in_store`.
    """
    configuration = {key: value for key, value in vars(guest).items() if key not in PARTS}
    configuration |= {key: [vars(entry) for entry in guest.files] if key == "files" else vars(getattr(guest, key)) for key in PARTS}
    return {"configuration": configuration, "steps": [{"name": one.name, "id": one.id, "in_store": one.in_store} for one in steps]}


def kernel_changes(guest: Guest, store: Store | None = None, project: Path | None = None) -> str:
    """Return what the fragments of `guest` change in the configuration, one symbol per line.

    Configures, compiles nothing.
    """
    if not guest.kernel.fragments:
        raise InnkeeperError("kernel.fragments is empty: there is nothing to compare", hint="name fragments in guest.toml")
    changes = config_changes(guest.architecture, guest.kernel, store or Store(paths.store_root()), project or paths.project_root())
    return "".join(f"CONFIG_{name}: {before} -> {after}\n" for name, (before, after) in changes.items())


def _state(step: PlannedStep) -> str:
    return IN_STORE if step.in_store else TO_MAKE if step.id else NOT_KNOWN
