"""Creation of a container for `create` and `run`.

The bundle, the container's state directory, the core's containment and the record.
"""

import datetime
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent.container.container import Container
from agent.container.host import HostContext
from agent.container.process import ProcessIO
from agent.container.spec.document import Spec, check_id, parse_spec
from agent.container.spec.reader import Document
from agent.oci import bundle, console, descriptors, pidfd_socket
from agent.oci.arguments import Option, Parsed
from agent.oci.command_table import Context
from agent.oci.pids import start_time
from agent.oci.state_dir import Record, StateDir

NO_PIVOT = "a root that is only chroot(2)ed to can be left; put it on a mount that can be pivoted to"
OPTIONS = (
    Option("bundle", "folder with config.json and the root (the current one)", "DIR", short="b"),
    Option("console-socket", "unix socket that is sent the terminal's master", "PATH"),
    Option("pid-file", "write the first process's number to FILE", "FILE"),
    pidfd_socket.OPTION,
    descriptors.OPTION,
    Option("config", "the specification, if not config.json of the bundle", "FILE", short="f"),
    Option("no-subreaper", "do not become the parent of what the container leaves behind"),
    Option("no-pivot", "do not use pivot_root", refused=NO_PIVOT),
    Option("no-new-keyring", "keep the session keyring", refused="a shared session keyring leaks keys to the container"),
)


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A container that is to be created: everything that is known before."""

    id: str
    bundle: Path
    document: Document
    spec: Spec
    host: HostContext

    def cgroup(self) -> Path:
        """Return the path of its cgroup."""
        linux = self.spec.linux
        root, name = self.host.group_of(linux.cgroups_path, linux.cgroup_absolute, self.id)
        return root / name


def read(context: Context, parsed: Parsed) -> CreateRequest:
    """Return what the options and the bundle request. Raises Refused."""
    id = check_id(parsed.arguments[0])
    folder = Path(parsed.text("bundle") or ".").absolute()
    document = bundle.load(folder, parsed.text("config", bundle.CONFIG))
    spec = parse_spec(document)
    for warning in spec.warnings:
        context.log.warning(warning)
    return CreateRequest(id, folder, document, spec, bundle.host(context.root, folder))


@contextmanager
def process_io(
    parsed: Parsed, request: CreateRequest, state_dir: StateDir, *, detached: bool, started_later: bool
) -> Iterator[tuple[ProcessIO, Spec]]:
    """Yield what the first process inherits, and the specification with its environment.

    The descriptors are closed afterwards, because the child has its own copies.
    """
    fds, environment = descriptors.preserved(parsed)
    spec, process = request.spec, request.spec.process
    if process is not None:
        process = process if started_later else console.sized(process, parsed)
        spec = replace(spec, process=replace(process, env=(*process.env, *environment)))
    stdio = console.streams(parsed, process is not None and process.terminal, detached)
    listener = state_dir.listen() if started_later else None
    try:
        yield ProcessIO(stdio, fds, listener.fileno() if listener else -1, detached=detached), spec
    finally:
        if listener is not None:
            listener.close()


async def create(
    context: Context, parsed: Parsed, request: CreateRequest, *, detached: bool, started_later: bool
) -> tuple[StateDir, Container]:
    """Create the container. Return its state directory, locked, and the container.

    Raises Refused, AlreadyExists, StepFailed, and then leaves nothing behind.
    """
    state_dir = StateDir.create(context.root, request.id)
    try:
        record = _record(request)
        state_dir.save_config(request.document)
        state_dir.save(record)
        with pidfd_socket.connected(parsed) as receiver:
            with process_io(parsed, request, state_dir, detached=detached, started_later=started_later) as (io, spec):
                container = await Container.create(request.id, request.id, spec, request.host, io)
            warn(context, container)
            try:
                _save_init(state_dir, record, container, parsed.text("pid-file"))
                receiver.send(b"standard", container.init.pidfd)
                if started_later:
                    # From here on it waits for another process and not for this one.
                    container.init.send(b"kept")
            except BaseException:
                await container.remove()
                raise
    except BaseException:
        state_dir.remove()
        state_dir.close()
        raise
    return state_dir, container


def warn(context: Context, container: Container) -> None:
    """Log and forget the core's warnings."""
    while container.warnings:
        context.log.warning(container.warnings.pop(0))


def _record(request: CreateRequest) -> Record:
    group = request.cgroup()
    missing = [path for path in (group, *group.parents) if not path.exists()]
    return Record(
        id=request.id,
        version=request.spec.version,
        bundle=str(request.bundle),
        rootfs=os.path.normpath(request.spec.root_path),
        created=datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
        owner=pwd.getpwuid(os.geteuid()).pw_name,
        annotations=dict(request.spec.annotations),
        cgroup=str(group),
        made=tuple([str(path) for path in reversed(missing)]),
    )


def _save_init(state_dir: StateDir, record: Record, container: Container, pid_file: str) -> None:
    """Record the first process, and write the file of --pid-file."""
    init = container.init
    assert container.cgroup is not None
    made = tuple([str(path) for path in container.cgroup.made])
    state_dir.save(replace(record, made=made, pid=init.pid, start_time=start_time(init.pid)))
    if pid_file:
        write_pid(pid_file, init.pid)


def write_pid(path: str, pid: int) -> None:
    """Write a pid to a file, which is complete or does not exist."""
    fresh = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with open(fresh, "w", encoding="ascii") as file:
        file.write(str(pid))
    os.replace(fresh, path)
