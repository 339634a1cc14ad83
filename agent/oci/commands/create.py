"""`create`, `start` and `run`: from a bundle to a container, in two processes or in one.

`create` contains the first process and stops before its program runs. `start`, another process,
lets it run. `run` creates, starts, waits and deletes: it relays the terminal and passes signals on.
"""

import datetime
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from agent import loop
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.process_io import ProcessIO
from agent.container.spec.document import Spec, check_id, parse_spec
from agent.container.spec.reader import Document
from agent.errors import WrongState
from agent.linux.process import set_child_subreaper
from agent.oci import bundle, console, descriptors
from agent.oci.arguments import Option, Parsed
from agent.oci.command_table import Command, Context
from agent.oci.foreground import Foreground, interruptible
from agent.oci.load_container import load_container
from agent.oci.output import write_pid
from agent.oci.record import Record, start_time
from agent.oci.state_dir import StateDir, locked

NO_PIVOT = "a root that is only chroot(2)ed to can be left; put it on a mount that can be pivoted to"
CREATE_OPTIONS = (
    Option("bundle", "folder with config.json and the root (the current one)", "DIR", short="b"),
    descriptors.CONSOLE_SOCKET,
    Option("pid-file", "write the first process's number to FILE", "FILE"),
    descriptors.PIDFD_SOCKET,
    descriptors.PRESERVE_FDS,
    Option("config", "the specification, if not config.json of the bundle", "FILE", short="f"),
    Option("no-subreaper", "do not become the parent of what the container leaves behind"),
    Option("no-pivot", "do not use pivot_root", refused=NO_PIVOT),
    Option("no-new-keyring", "keep the session keyring", refused="a shared session keyring leaks keys to the container"),
)
RUN_OPTIONS = (
    *CREATE_OPTIONS,
    Option("detach", "do not wait for the container's end", short="d"),
    Option("keep", "do not delete the container at its end"),
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
        root, name = self.host.cgroup_of(self.spec.linux, self.id)
        return root / name


def _read_request(context: Context, parsed: Parsed) -> CreateRequest:
    """Return what the options and the bundle request. Raises Refused."""
    id = check_id(parsed.arguments[0])
    folder = Path(parsed.text("bundle") or ".").absolute()
    config = parsed.text("config", bundle.CONFIG)
    document = bundle.read_json(folder / config, config)
    spec = parse_spec(document, bundle=str(folder))
    context.log.warnings(list(spec.warnings))
    return CreateRequest(id, folder, document, spec, bundle.host(context.root, folder))


@contextmanager
def _process_io(
    parsed: Parsed, request: CreateRequest, state_dir: StateDir, *, detached: bool, started_later: bool
) -> Iterator[tuple[ProcessIO, Spec]]:
    """Yield what the first process inherits, and the specification with its environment.

    The descriptors are closed afterwards, because the child has its own copies.
    """
    fds, environment = descriptors.preserved_fds(parsed)
    spec, process = request.spec, request.spec.process
    if process is not None:
        process = process if started_later else console.with_terminal_size(process, parsed)
        spec = replace(spec, process=replace(process, env=(*process.env, *environment)))
    stdio = descriptors.process_stdio(parsed, process is not None and process.terminal, detached)
    listener = state_dir.listen() if started_later else None
    try:
        yield ProcessIO(stdio, fds, listener.fileno() if listener else -1, detached=detached), spec
    finally:
        if listener is not None:
            listener.close()


async def _create(
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
        with descriptors.pidfd_socket(parsed) as send_pidfd:
            with _process_io(parsed, request, state_dir, detached=detached, started_later=started_later) as (io, spec):
                container = await Container.create(request.id, request.id, spec, request.host, io)
            context.log.warnings(container.warnings)
            try:
                _save_init(state_dir, record, container, parsed.text("pid-file"))
                send_pidfd(b"standard", container.init.pidfd)
                if started_later:
                    # From here on it waits for another process and not for this one.
                    container.init.send(b"recorded")
            except BaseException:
                await container.remove()
                raise
    except BaseException:
        state_dir.remove()
        state_dir.close()
        raise
    return state_dir, container


def _record(request: CreateRequest) -> Record:
    cgroup = request.cgroup()
    missing = [path for path in (cgroup, *cgroup.parents) if not path.exists()]
    return Record(
        id=request.id,
        version=request.spec.version,
        bundle=str(request.bundle),
        rootfs=os.path.normpath(request.spec.root_path),
        created=datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
        owner=pwd.getpwuid(os.geteuid()).pw_name,
        annotations=dict(request.spec.annotations),
        cgroup=str(cgroup),
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


def create(context: Context, parsed: Parsed) -> int:
    """Run `create`. Return the exit status."""
    request = _read_request(context, parsed)

    async def main() -> None:
        work = _create(context, parsed, request, detached=True, started_later=True)
        state_dir, _container = await interruptible(work, "create")
        state_dir.close()

    loop.run(main())
    return 0


def start(context: Context, parsed: Parsed) -> int:
    """Run `start`. Return the exit status."""

    async def main() -> None:
        with locked(context.root, parsed.arguments[0]) as state_dir:
            observed = state_dir.observe()
            container = load_container(state_dir, observed)
            connection = state_dir.connect()
            if connection is None:
                raise WrongState(f"cannot start container {state_dir.id!r}: it is {observed.status.value}, not created")
            container.init.use_start_connection(connection)
            await interruptible(container.start(), "start")
            context.log.warnings(container.warnings)
            state_dir.remove_socket()

    loop.run(main())
    return 0


def run(context: Context, parsed: Parsed) -> int:
    """Run `run`. Return the exit status.

    It is that of the container's program, 128 + n if signal n ended it, or 0 with --detach.
    """
    request = _read_request(context, parsed)
    detached = parsed.switch("detach")
    if not detached and not parsed.switch("no-subreaper"):
        set_child_subreaper()

    async def main() -> int:
        work = _create(context, parsed, request, detached=detached, started_later=False)
        state_dir, container = await interruptible(work, "create")
        foreground = None if detached else Foreground()
        with state_dir:
            try:
                await container.start()
                state_dir.unlock()
                if foreground is None:
                    return 0
                status = await foreground.until_end(container.init)
            except BaseException:
                await _delete(context, state_dir, container)
                raise
            if not parsed.switch("keep"):
                await _delete(context, state_dir, container)
            return status

    return loop.run(main())


async def _delete(context: Context, state_dir: StateDir, container: Container) -> None:
    state_dir.lock()
    await container.remove()
    context.log.warnings(container.warnings)
    state_dir.remove()


COMMANDS = (
    Command("create", "create a container from a bundle; it runs when it is started", create, options=CREATE_OPTIONS, contains=True),
    Command("start", "run the program of a created container", start),
    Command("run", "create and start a container, wait for its end and delete it", run, options=RUN_OPTIONS, contains=True),
)
