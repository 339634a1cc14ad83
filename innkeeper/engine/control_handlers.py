"""What the owner of a container does for other processes: pause, resume, snapshot."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innkeeper.client import RpcError
from innkeeper.engine import clock, records, snapshot_hooks
from innkeeper.errors import InnkeeperError
from innkeeper.vm import snapshot

if TYPE_CHECKING:
    from innkeeper.engine.session import Session

DOCUMENT = "snapshot.json"


def handle(session: "Session", request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a request of `control` and return the answer. Raises InnkeeperError."""
    if session.facts["status"] != records.RUNNING:
        raise InnkeeperError(f"container {session.name} is not running: it is {session.facts['status']}")
    try:
        match request.get("command"):
            case "pause":
                return _pause(session)
            case "resume":
                return _resume(session)
            case "snapshot":
                return _snapshot(session, Path(request["into"]))
            case other:
                raise InnkeeperError(f"the process that owns the container does not know the request {other}")
    except RpcError as error:
        raise InnkeeperError(f"container {session.name}: {error.message}") from error
    except OSError as error:
        raise InnkeeperError(f"container {session.name}: {error}") from error


def _pause(session: "Session") -> dict[str, Any]:
    if session.facts["paused"]:
        raise InnkeeperError(f"container {session.name} is already paused")
    session.agent.pause_container(session.guest_id)
    session.note(paused=True)
    return {}


def _resume(session: "Session") -> dict[str, Any]:
    if not session.facts["paused"]:
        raise InnkeeperError(f"container {session.name} is not paused")
    session.agent.resume_container(session.guest_id)
    session.note(paused=False)
    return {}


def _snapshot(session: "Session", folder: Path) -> dict[str, Any]:
    """Save the VM into `folder`. A container that is paused stays so.

    Frozen first and thawed last, so that no process of the container sees a moment in between.
    """
    if session.facts["debug_guest"]:
        raise InnkeeperError("a debug guest cannot be saved: its shells would be in each fork", hint="run it without --debug-guest")
    vm = snapshot.prepare(session.vm)
    spec = json.loads((session.folder / records.SPEC).read_text())
    paused, agent = session.facts["paused"], session.agent
    begun = time.monotonic()
    if not paused:
        snapshot_hooks.run(agent, session.guest_id, spec, snapshot_hooks.BEFORE_SNAPSHOT)
        agent.pause_container(session.guest_id)
    frozen = time.monotonic()
    try:
        snapshot.save(vm, folder)
        clock.correct(agent)  # its clock stood still meanwhile
    finally:
        if not paused:
            agent.resume_container(session.guest_id)
    thawed = time.monotonic()
    warning = None
    if not paused:
        try:
            snapshot_hooks.run(agent, session.guest_id, spec, snapshot_hooks.AFTER_SNAPSHOT)
        except (InnkeeperError, RpcError) as error:
            warning = str(error)
    document = {
        **snapshot.document(vm),
        "created": time.time(),
        "container": session.name,
        "guest_id": session.guest_id,
        "facts": session.facts,
        "frozen_seconds": round(thawed - frozen, 3),
    }
    for name, value in ((records.SPEC, spec), (DOCUMENT, document)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(json.dumps(value, indent=1) + "\n")
    return {"warning": warning, "seconds": round(time.monotonic() - begun, 3), "frozen_seconds": document["frozen_seconds"]}
