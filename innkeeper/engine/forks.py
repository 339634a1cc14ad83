"""Start containers from a snapshot: each fork is a detached container of its own.

What clones of a template must not share, forks must not share either: before a process of the
container runs in a fork, `ResumeClone` gives its guest entropy, clock and hardware address
(docs/templates.md). What was saved of the container stays: its id in the guest, its host name, its
open files, and its programs' memory.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from innkeeper import progress
from innkeeper.client import Agent
from innkeeper.engine import clock, clones, host, records, session, snapshot_hooks, snapshots
from innkeeper.engine.session import Session
from innkeeper.engine.snapshots import Snapshot
from innkeeper.errors import InnkeeperError
from innkeeper.image import Port
from innkeeper.vm import Forward, HostPrograms, RestoredVm, registry, saved_state, snapshot


@dataclass(frozen=True, kw_only=True)
class Fork:
    """A fork that is to be started from the snapshot in `folder`."""

    folder: Path
    host: HostPrograms
    name: str = ""
    ports: tuple[Port, ...] = ()
    remove: bool = False


class _ForkedSession(Session):
    """A container that is frozen in the moment of its snapshot."""

    def start(self) -> None:
        """Thaw the container, and tell it that it is a fork."""
        self.agent.resume_container(self.guest_id)
        snapshot_hooks.run(self.agent, self.guest_id, json.loads((self.folder / records.SPEC).read_text()), snapshot_hooks.AFTER_FORK)
        self.note_running()


def start(source: str, *, number: int, name: str, ports: Sequence[Port], remove: bool) -> Iterator[str]:
    """Start forks of a running container, or of a snapshot by its tag. Yield the id of each.

    Raises InnkeeperError. The forks that run by then go on.
    """
    from innkeeper.engine import monitor  # which imports this module

    if number > 1 and (fixed := [port for port in ports if port.host_port]):
        raise InnkeeperError(
            f"-p: {number} forks cannot all have port {fixed[0].host_port} of the host", hint="leave it out: each fork gets a free one"
        )
    with _snapshot_of(source) as taken:
        document = taken.document()
        if ports and not document["config"]["network"]:
            raise InnkeeperError("-p cannot be used: the container was started with --network none")
        programs = host.prepare(Path(document["config"]["kernel"]), accelerator=document["config"]["accel"], shares=False)
        for index in range(number):
            named = f"{name}-{index + 1}" if name and number > 1 else name
            yield monitor.start(Fork(folder=taken.folder, host=programs, name=named, ports=tuple(ports), remove=remove))


@contextmanager
def _snapshot_of(source: str) -> Iterator[Snapshot]:
    """Context manager: yield the snapshot with this tag, or one of the container of this name.

    The latter is made, and removed at the end. Raises InnkeeperError.
    """
    running = [one for one in records.all_containers() if one.alive and source in (one.name, one.id)]
    if snapshots.exists(source):
        if running:
            raise InnkeeperError(f"{source} is a snapshot and a container", hint=f"for the container use its id: {running[0].id}")
        with snapshots.found(source) as known:
            yield known
        return
    with snapshots.temporary(running[0] if running else records.lookup(source)) as made:
        yield made


@contextmanager
def opened(fork: Fork) -> Iterator[Session]:
    """Start a VM from the snapshot, with the container still frozen in it.

    At the end of the `with` the VM is gone, and with --rm the record too. Raises InnkeeperError.
    """
    document = Snapshot("", fork.folder).document()
    entry = registry.create(fork.name or None)
    try:
        scratch = entry.folder / snapshot.SCRATCH
        saved_state.copy_disk(fork.folder / snapshot.SCRATCH, scratch)
        (entry.folder / records.SPEC).write_bytes((fork.folder / records.SPEC).read_bytes())
        own = {"detached": True, "remove": fork.remove, "status": records.STARTING, "paused": False, "ports": []}
        facts = {**document["facts"], **own, "guest_id": document["guest_id"], "forked_from": document["container"]}
        entry.update(keep=not fork.remove, container=facts)
        forwards = tuple(Forward(port.protocol, port.host_ip, port.host_port, port.container_port) for port in fork.ports)
        config = snapshot.configuration(document, scratch, forwards)
        with RestoredVm(config, fork.host, entry, fork.folder / snapshot.STATE) as vm, session.failures_recorded(vm, entry):
            vm.check_key(document["key"])
            vm.take_ports()  # before the step: the error of a port in use is not one of the start
            with progress.step("starting the fork"):
                vm.start()
                connection = clones.resumed(vm)
            with connection as client:
                agent = Agent(client)
                forked = _ForkedSession(entry, vm, agent, interactive=True, guest_id=document["guest_id"])
                with clock.synchronized(agent), session.requests_served(forked):
                    yield forked
    finally:
        entry.release()
