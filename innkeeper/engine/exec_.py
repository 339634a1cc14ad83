"""Run another process in a running container.

It inherits the settings of the container's own process, with the changes that the user asks for.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from innkeeper.client import RpcError
from innkeeper.engine import attach, guest_agent, records, terminal
from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name


class ExecRequest(NamedTuple):
    """The flags of `exec`."""

    command: Sequence[str]
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    env: Sequence[str] = ()
    env_files: Sequence[Path] = ()
    workdir: str | None = None
    user: str | None = None


def run(name: str, request: ExecRequest) -> int:
    """Start the process and, unless detached, attend to it. Return its exit status."""
    from innkeeper.image import process_to_proto

    if not request.detach:
        attach.check_terminal(request.interactive, request.tty)
    container = records.lookup(name)
    if container.facts.paused:
        raise InnkeeperError(f"container {container.name} is paused", hint=f"resume it first: {program_name()} resume {container.name}")
    with guest_agent.connected(container) as agent:
        spec = json.loads((container.folder / records.SPEC).read_text())
        document = process_document(spec, request)
        exec_id = f"exec-{os.urandom(6).hex()}"
        try:
            agent.exec_process(container.guest_id, exec_id, process_to_proto(document), request.user or "")
        except RpcError as error:
            raise guest_agent.agent_error(error) from error
        added = guest_agent.Process(agent, container.guest_id, exec_id)
        if request.detach:
            added.release()
            return 0
        added.hold()
        return attach.attach_streams(added, interactive=request.interactive, tty=request.tty)


def process_document(spec: dict[str, Any], request: ExecRequest) -> dict[str, Any]:
    """Return the OCI process: the container's own, with `request` applied.

    It keeps the container's capabilities, limits and settings. The user is not resolved here but in
    the guest, because the container may have created it since it started.
    """
    own = dict(spec["process"])
    own.pop("consoleSize", None)
    own |= {"terminal": request.tty, "args": list(request.command), "env": _environment(own["env"], request)}
    if request.tty and (size := terminal.size()):
        own["consoleSize"] = {"height": size[0], "width": size[1]}
    if request.workdir is not None:
        if not request.workdir.startswith("/"):
            raise InnkeeperError(f"-w {request.workdir}: must be an absolute path")
        own["cwd"] = request.workdir
    return own


def _environment(inherited: Sequence[str], request: ExecRequest) -> list[str]:
    requested: list[str] = []
    if request.env or request.env_files:
        from innkeeper.image.option_values import resolve_env

        requested = resolve_env(request.env, request.env_files, os.environ)
    if request.tty:
        requested = [f"TERM={os.environ.get('TERM', 'xterm')}", *requested]
    variables = dict(entry.partition("=")[::2] for entry in [*inherited, *requested])
    return [f"{name}={value}" for name, value in variables.items()]
