"""A VM with one container in it, owned by this process: set up, hand out, clean up."""

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from innkeeper import progress
from innkeeper.client import Agent, Client, RpcError, connect
from innkeeper.engine import attach, clock, control, guest_agent, guest_setup, host, records, resolve, scratch, signals, templates
from innkeeper.engine.resolve import ResolvedRun
from innkeeper.errors import InnkeeperError
from innkeeper.guest import BootFiles
from innkeeper.image.run_plan import RunPlan, plan_run
from innkeeper.vm import AGENT_PORT, CloneableVm, Disk, Forward, Share, SharedPath, VirtualMachine, VmConfig, console, registry
from innkeeper.vm.pooled import PooledVm


class Session:
    """The container `id` in its VM, created but not started.

    `interactive`: its standard input stays open. In its guest it may have another id.
    """

    def __init__(
        self, entry: registry.Entry, vm: VirtualMachine | PooledVm, agent: Agent, *, interactive: bool, guest_id: str = ""
    ) -> None:
        self.id = entry.id
        self.name = entry.name
        self.folder = entry.folder
        self.agent = agent
        self.interactive = interactive
        self.guest_id = guest_id or entry.id
        self.process = guest_agent.Process(agent, self.guest_id, self.guest_id)
        self.vm = vm
        self._entry = entry
        self._noting = threading.Lock()

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of the container: the fields of records.Facts."""
        return dict(self._entry.get("container"))

    def start(self) -> None:
        """Start the container."""
        self.agent.start_container(self.guest_id)
        self.note_running()

    def note_running(self) -> None:
        """Record that the container runs."""
        self.note(status=records.RUNNING, started=time.time(), ports=[str(forward) for forward in self.vm.forwards])

    def finish(self, exit_status: int) -> None:
        """Record that the container has ended, with its exit status.

        With volumes, also remove the container, and have the guest unmount the host's folders: it
        may still have unwritten data of files that a program had mapped.
        """
        # With --rm the record goes at once, and nobody could read it.
        oom_killed = self._entry.keep and guest_agent.oom_killed(self.agent, self.guest_id)
        self.note(status=records.EXITED, finished=time.time(), exit_status=exit_status, oom_killed=oom_killed, paused=False)
        if self.vm.config.shares:
            self.agent.remove_container(self.guest_id)
            self.vm.stop(guest_agent.destroy_sandbox(self.agent))

    def note(self, **changed: Any) -> None:
        """Change facts of the container in its record, which other processes read.

        Any thread may.
        """
        with self._noting:
            self._entry.update(container={**self.facts, **changed})


@contextmanager
def opened(resolved: ResolvedRun) -> Iterator[Session]:
    """Boot a VM and create the container of `plan` in it.

    At the end of the `with` the VM is gone, and with --rm the record too. If the guest dies in the
    meantime, the error becomes an InnkeeperError with the console's last lines.
    """
    entry = registry.create(resolved.request.name or None)
    try:
        run = plan_run(resolved.image, resolved.options, entry.id)
        config = _vm_config(resolved, run, entry.folder)
        entry.update(keep=not resolved.request.remove, container=_facts(resolved, run))
        # `exec` reads the specification: it may run while another process owns the container.
        (entry.folder / records.SPEC).write_text(json.dumps(run.document) + "\n")
        begun = time.monotonic()
        clone = templates.start(resolved, config, entry)
        with clone[0] if clone else VirtualMachine(config, resolved.host, entry) as vm:
            with failures_recorded(vm, entry):
                with clone[1] if clone else _booted(vm, resolved.request.timeout) as client:
                    _note_start(entry, clone[0] if clone else None, begun)
                    agent = Agent(client)
                    created = time.monotonic()
                    guest_setup.prepare(agent, resolved, run, entry.id, booted=clone is None)
                    progress.debug(f"the container was created in {_milliseconds_since(created)} ms")
                    if clone is None:
                        templates.make_later(resolved, config, entry)
                    session = Session(entry, vm, agent, interactive=resolved.options.interactive)
                    with clock.synchronized(agent), requests_served(session):
                        yield session
    finally:
        entry.release()


@contextmanager
def requests_served(session: Session) -> Iterator[None]:
    """Context manager: do what other processes ask the owner of the container for."""

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        from innkeeper.engine import control_handlers  # few containers are ever asked

        return control_handlers.handle(session, request)

    with control.serving(session.folder, handle, lambda: session.vm.stop(0)):
        yield


def run(resolved: ResolvedRun) -> int:
    """Run the container in the foreground, to its end. Return its exit status.

    This process owns the VM and connects its standard streams to the container.
    """
    with opened(resolved) as session:
        started = time.monotonic()
        session.start()
        status = attach.attach_streams(session.process, interactive=resolved.options.interactive, tty=resolved.options.tty)
        session.finish(status)
        progress.debug(f"the container started and ended in {_milliseconds_since(started)} ms")
        return status


def _milliseconds_since(start: float) -> int:
    return round(1000 * (time.monotonic() - start))


def _note_start(entry: registry.Entry, clone: CloneableVm | PooledVm | None, begun: float) -> None:
    """Record how the VM started, and the milliseconds until its agent answered."""
    key, how, done = None, "boot", "booted"
    if isinstance(clone, PooledVm):
        key, how, done = clone.key, "pool", "came from the pool"
    elif clone is not None and clone.template is not None:
        key, how, done = clone.template.key, "template", f"started from template {clone.template.key}"
    milliseconds = _milliseconds_since(begun)
    entry.update(start={"from": how, "template": key, "milliseconds": milliseconds})
    progress.debug(f"the guest {done} in {milliseconds} ms")


def _booted(vm: VirtualMachine | PooledVm, timeout: float) -> Client:
    """Boot the VM and return a connection to its agent."""
    from innkeeper.vm.boot import boot  # not needed for what starts from a template

    assert isinstance(vm, VirtualMachine), "one of the pool runs"
    vm.take_ports()  # before the step: the error of a port in use is not one of the boot
    with progress.step("booting the guest"):
        boot(vm, timeout)
    return connect(vm.address(AGENT_PORT), timeout=guest_agent.CONNECT_SECONDS)


@contextmanager
def failures_recorded(vm: VirtualMachine | PooledVm, entry: registry.Entry) -> Iterator[None]:
    """Context manager: turn any failure of the session into one InnkeeperError and record it."""
    try:
        yield
    except (RpcError, OSError) as error:
        failure = guest_agent.cause(vm, error)
        _note_failure(entry, failure, out_of_memory=console.ran_out_of_memory(vm.console_path))
        raise failure from error
    except InnkeeperError as error:
        _note_failure(entry, error, out_of_memory=console.ran_out_of_memory(vm.console_path))
        raise
    except BaseException as error:
        _note_failure(entry, InnkeeperError(f"ended by {type(error).__name__} {error}".strip()))
        raise


def _note_failure(entry: registry.Entry, failure: InnkeeperError, *, out_of_memory: bool = False) -> None:
    """Record why the container has no exit status of its own.

    A container that never ran gets the exit status of `run` itself.
    """
    facts = entry.get("container")
    if facts["status"] in (records.EXITED, records.FAILED):
        return
    exit_status = records.LOST if facts["started"] else failure.exit_status
    changed = {"status": records.FAILED, "error": failure.message, "finished": time.time(), "exit_status": exit_status}
    entry.update(container={**facts, **changed, "oom_killed": out_of_memory})


def _facts(resolved: ResolvedRun, run: RunPlan) -> dict[str, Any]:
    """Return the record of a container that is about to start."""
    process: Any = run.document["process"]
    facts = records.Facts(
        image=resolved.request.reference,
        digest=resolved.image.id,
        command=list(process["args"]),
        volumes=[f"{volume.host}:{volume.destination}{':ro' if volume.read_only else ''}" for volume in resolved.options.volumes],
        stop_signal=signals.parse(run.stop_signal),
        terminal=resolved.options.tty,
        detached=resolved.request.detached,
        remove=resolved.request.remove,
        debug_guest=resolved.request.guest == "debug",
        kernel=resolved.boot_files.kernel_from,
    )
    return facts._asdict()


def _vm_config(resolved: ResolvedRun, run: RunPlan, folder: Path) -> VmConfig:
    """Return the VM's configuration.

    The order of the disks is that of `plan_run`: the image is /dev/vdb, the scratch disk /dev/vdc.
    """
    return dataclasses.replace(
        resolve.vm_config(resolved.request, resolved.options, resolved.boot_files),
        disks=(Disk(resolved.image.erofs, read_only=True), Disk(_scratch_disk(folder, resolved.request.scratch), volatile=True)),
        shares=tuple(
            Share(share.tag, tuple(SharedPath(name, path, read_only) for (path, read_only), name in share.paths.items()))
            for share in run.shares
        ),
        forwards=tuple(Forward(port.protocol, port.host_ip, port.host_port, port.container_port) for port in run.forwards),
    )


def _scratch_disk(folder: Path, size: int) -> Path:
    if size < 16 << 20:
        raise InnkeeperError("--scratch: minimum size allowed is 16m")
    return scratch.make_disk(folder, size)


@contextmanager
def bare_guest(boot: BootFiles) -> Iterator[Agent]:
    """Context manager: boot a VM without a container, for `doctor`, and connect to its agent."""
    config = VmConfig(boot.kernel, boot.rootfs, initrd=boot.initrd, machine_type=boot.machine_type, cmdline=boot.parameters, network=False)
    with host.virtual_machine(config) as vm:
        with _booted(vm, 120) as client:
            yield Agent(client)
