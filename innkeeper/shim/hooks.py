"""OCI hooks of a container (runtime-spec, config.md, "POSIX-platform Hooks").

Those of the runtime's namespaces run on the host, as with runc: nerdctl sets up its networks so.
Those of startContainer run in the container, so the guest's agent has them. A hook gets the
container's state on standard input, its own arguments and environment, and the bundle as its
working directory.
"""

import json
import os
import signal
import subprocess
import tempfile
from typing import Any

from innkeeper.errors import InnkeeperError
from innkeeper.shim import log
from innkeeper.shim.state import State

BEFORE_CREATION = ("prestart", "createRuntime")
IN_GUEST = "startContainer"
KINDS = (*BEFORE_CREATION, IN_GUEST, "poststart", "poststop")
OUTPUT_MAX = 400
"""Characters of a hook's output that an error has."""

Document = dict[str, Any]


def check(document: Document) -> None:
    """Raise InnkeeperError for a hook that can run nowhere."""
    for kind, hooks in (document.get("hooks") or {}).items():
        if hooks and kind not in KINDS:
            raise InnkeeperError(f"hooks.{kind}: a program of the host cannot run in the namespaces of a container in a VM")
        for hook in hooks or ():
            if not os.path.isabs(hook.get("path") or ""):
                raise InnkeeperError(f"hooks.{kind}: {hook.get('path')!r} is not an absolute path")


class Hooks:
    """The hooks of one container that run on the host."""

    def __init__(self, document: Document, id: str, state: State) -> None:
        self._hooks: Document = document.get("hooks") or {}
        self._container = {
            "ociVersion": document.get("ociVersion", ""),
            "id": id,
            "bundle": str(state.bundle),
            "annotations": document.get("annotations") or {},
        }
        self._state = state

    def has_creation(self) -> bool:
        """Return whether there are hooks for the creation.

        These need a process in the container's network namespace.
        """
        return any(self._hooks.get(kind) for kind in BEFORE_CREATION)

    def create(self, pid: int) -> None:
        """Run those for the creation.

        `pid` is in the container's network namespace. Raises InnkeeperError if one fails. From now
        on `stopped` is due, also after kill -9 of this process.
        """
        if self._hooks.get("poststop"):
            self._state.hooks = True
            self._state.save()
        for kind in BEFORE_CREATION:
            for hook in self._hooks.get(kind) or ():
                _run(kind, hook, {**self._container, "status": "creating", "pid": pid})

    def started(self, pid: int) -> None:
        """Run those for after the start. An error is logged."""
        self._run_all("poststart", {**self._container, "status": "running", "pid": pid})

    def stopped(self) -> None:
        """Run those for after the end, once. An error is logged."""
        if self._state.hooks:
            self._run_all("poststop", {**self._container, "status": "stopped"})
            self._state.hooks = False

    def _run_all(self, kind: str, state: Document) -> None:
        for hook in self._hooks.get(kind) or ():
            try:
                _run(kind, hook, state)
            except InnkeeperError as error:
                log.error(error.message)


def after_loss(id: str, state: State) -> None:
    """Run what is due for a container whose shim was killed."""
    if state.hooks:
        try:
            document = json.loads((state.bundle / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            log.error(f"hooks.poststop: {error}")
        else:
            Hooks(document, id, state).stopped()


def _run(kind: str, hook: Document, state: Document) -> None:
    """Run one hook. Raises InnkeeperError unless it ends in time, with status 0."""
    path: str = hook["path"]
    environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or ())
    # Files, not pipes: a process that the hook leaves behind may hold its output open.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(json.dumps(state).encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                hook.get("args") or [path],
                executable=path,
                env=environment,
                cwd=state["bundle"],
                stdin=given,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise InnkeeperError(f"hooks.{kind}: {path}: {error.strerror}") from error
        try:
            status = process.wait(hook.get("timeout"))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise InnkeeperError(f"hooks.{kind}: {path} was not done within {hook['timeout']} s") from None
        if status:
            output.seek(0)
            text = output.read().decode(errors="replace").strip()[-OUTPUT_MAX:]
            raise InnkeeperError(f"hooks.{kind}: {path} ended with status {status}{f': {text}' if text else ''}")
