"""The core's object for a container that another process has created."""

from pathlib import Path

from agent.container.cgroup.manager import Cgroup
from agent.container.container import Container
from agent.container.host_context import HostContext
from agent.container.lifecycle import Status
from agent.container.process import ContainerProcess
from agent.container.spec.document import parse_resources, parse_spec
from agent.oci.record import ObservedState
from agent.oci.state_dir import StateDir


def load_container(state_dir: StateDir, observed: ObservedState) -> Container:
    """Return the container as the core's object.

    Call it inside the event loop, which watches the first process from now on. A cgroup that no
    longer exists is left out.
    """
    record = observed.record
    spec = parse_spec(state_dir.load_config(), bundle=record.bundle)
    path = Path(record.cgroup)
    mknod = spec.process is not None and spec.process.has_mknod
    resources = parse_resources(record.resources) if record.resources else spec.linux.resources
    cgroup = None
    if record.owns_cgroup():
        try:
            cgroup = Cgroup(path, [Path(made) for made in record.made], mknod, attached=resources.devices)
        except FileNotFoundError:
            pass
    started = observed.status not in (Status.CREATING, Status.CREATED)
    init = ContainerProcess.attach(record.id, record.pid, record.open_init(), started)
    host = HostContext(path.parent, state_dir.path.parent, bundle=Path(record.bundle))
    return Container.attach(spec, host, cgroup, init)
