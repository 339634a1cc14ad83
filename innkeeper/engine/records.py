"""The command line's records of containers: a view of `innkeeper.vm.registry`.

Each VM holds one container, whose facts are stored in the VM's state under "container". The process
that owns a container (`run` in the foreground, or its monitor) holds the VM's lock for its whole
life. A record whose lock nobody holds has ended, whatever its state says.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from innkeeper.engine.logfile import rfc3339
from innkeeper.errors import InnkeeperError
from innkeeper.paths import program_name
from innkeeper.vm import AGENT_PORT, registry

STARTING, RUNNING, EXITED, FAILED = "starting", "running", "exited", "failed"
LOG = "container.log"
SPEC = "spec.json"
"""The file with the container's OCI specification, in the VM's folder and in a snapshot."""
LOST = 255
"""The exit status of a container if its own is unknown: its VM or its owner ended before it."""


class Facts(NamedTuple):
    """The facts that the owner of a container records.

    Times are seconds since the epoch. `stop_signal` is a number. A fork has the container's id of
    the guest that was saved (`guest_id`), and what it was forked from.
    """

    image: str
    digest: str
    command: Sequence[str] = ()
    ports: Sequence[str] = ()
    volumes: Sequence[str] = ()
    stop_signal: int = 15
    terminal: bool = False
    detached: bool = False
    remove: bool = False
    debug_guest: bool = False
    kernel: str = ""
    status: str = STARTING
    started: float = 0.0
    finished: float = 0.0
    exit_status: int | None = None
    error: str = ""
    oom_killed: bool = False
    paused: bool = False
    guest_id: str = ""
    forked_from: str = ""


class Container(NamedTuple):
    """One container as another process sees it."""

    vm: registry.Record
    facts: Facts

    @property
    def id(self) -> str:
        return self.vm.id

    @property
    def guest_id(self) -> str:
        """The id of the container in its guest."""
        return self.facts.guest_id or self.id

    @property
    def name(self) -> str:
        return self.vm.name

    @property
    def folder(self) -> Path:
        return self.vm.folder

    @property
    def created(self) -> float:
        return float(self.vm.state.get("created", 0))

    @property
    def owner(self) -> int:
        """The process id of the owner, valid while `alive`."""
        return int(self.vm.state.get("owner", 0))

    @property
    def alive(self) -> bool:
        """Whether the owner was running when this record was read."""
        return self.vm.alive

    @property
    def address(self) -> str:
        """The address of the agent, for `innkeeper.client.connect`.

        Raises InnkeeperError unless the container is running.
        """
        if not self.alive or self.facts.status != RUNNING:
            raise InnkeeperError(f"container {self.name} is not running: it is {self.facts.status}")
        return self.vm.address(AGENT_PORT)

    def document(self) -> dict[str, Any]:
        """Return everything known about the container, for programs to read."""
        return {"id": self.id, "name": self.name, "created": self.created, "owner": self.owner, **self.facts._asdict()}

    def status(self) -> str:
        """Return docker's name for the status: created, running, paused or exited.

        A container that failed to start is "created", as with docker.
        """
        if self.facts.status == RUNNING:
            return "paused" if self.facts.paused else "running"
        return "exited" if self.facts.status == EXITED or self.facts.started else "created"

    def state(self) -> dict[str, Any]:
        """Return docker's `State`, field by field. `Pid` is QEMU's process id."""
        facts, status = self.facts, self.status()
        runs = status in ("running", "paused")
        return {
            "Status": status,
            "Running": runs,
            "Paused": status == "paused",
            "Restarting": False,
            "OOMKilled": facts.oom_killed,
            "Dead": False,
            "Pid": int(self.vm.state.get("pid") or 0) if runs else 0,
            "ExitCode": facts.exit_status or 0,
            "Error": facts.error,
            "StartedAt": _timestamp(facts.started),
            "FinishedAt": _timestamp(facts.finished),
        }

    def docker_document(self) -> dict[str, Any]:
        """Return the fields of `docker inspect` that are known here, under the same names."""
        program, *arguments = self.facts.command or [""]
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Created": _timestamp(self.created),
            "Path": program,
            "Args": arguments,
            "Image": self.facts.digest,
            "State": self.state(),
        }

    def still_alive(self) -> bool:
        """Return whether the owner is running now."""
        return registry.has_owner(self.folder)

    def wait_ended(self, timeout: float) -> bool:
        """Wait until the owner has ended. Return False if it has not within `timeout` seconds.

        A thread waits for the owner's lock, because flock(2) has no timeout.
        """
        from threading import TIMEOUT_MAX, Thread  # `ps` has no use for it

        thread = Thread(target=registry.wait_ended, args=(self.folder,), daemon=True)
        thread.start()
        thread.join(min(TIMEOUT_MAX, timeout))
        return not self.still_alive()


def _timestamp(at: float) -> str:
    """Return a time in docker's format. Zero, an event that has not happened, is Go's zero time."""
    return rfc3339(at) if at else "0001-01-01T00:00:00Z"


def _container(record: registry.Record) -> Container:
    recorded = record.state.get("container", {})
    facts = Facts(**{"image": "", "digest": "", **{key: value for key, value in recorded.items() if key in Facts._fields}})
    if not record.alive and facts.status in (STARTING, RUNNING):
        exit_status = LOST if facts.exit_status is None else facts.exit_status
        facts = facts._replace(status=FAILED, error=facts.error or "its owner was killed", exit_status=exit_status)
    return Container(record, facts)


def all_containers() -> list[Container]:
    """Return every container, oldest first. VMs without one (`doctor`, `bench`) are left out."""
    return [_container(record) for record in registry.list_vms() if "container" in record.state]


def lookup(name: str) -> Container:
    """Return the container with this name, id or unique beginning of an id.

    Raises InnkeeperError if there is none, or several.
    """
    return lookup_all([name])[0]


def lookup_all(names: Sequence[str]) -> list[Container]:
    """Return the container of each name, as `lookup` does. Raises InnkeeperError."""
    containers = all_containers()
    return [_named(name, containers) for name in names]


def _named(name: str, containers: Sequence[Container]) -> Container:
    matching = [one for one in containers if name in (one.name, one.id)] or [one for one in containers if name and one.id.startswith(name)]
    if not matching:
        raise InnkeeperError(f"no such container: {name}", hint=f"{program_name()} ps -a lists them")
    if len(matching) > 1:
        raise InnkeeperError(f"multiple container ids start with {name}", hint="give more characters of the id")
    return matching[0]
