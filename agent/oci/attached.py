"""The core's object for a container that another process has created.

It consists of the container's record, its cgroup and its first process.
"""

from pathlib import Path

from agent.container.cgroup.manager import Cgroup
from agent.container.container import Container
from agent.container.host import HostContext
from agent.container.lifecycle import Status
from agent.container.process import ContainerProcess
from agent.container.spec.document import parse_resources, parse_spec
from agent.linux.capability import CAP_MKNOD
from agent.oci.state_dir import StateDir
from agent.oci.status import ObservedState, open_init


def load_container(state_dir: StateDir, observed: ObservedState) -> Container:
    """Return the container as the core's object.

    Call it inside the event loop, which watches the first process from now on. A cgroup that no
    longer exists is left out.
    """
    record = observed.record
    spec = parse_spec(state_dir.load_config())
    group = Path(record.cgroup)
    mknod = bool(spec.process and spec.process.capabilities and spec.process.capabilities.bounding >> CAP_MKNOD & 1)
    resources = parse_resources(record.resources) if record.resources else spec.linux.resources
    cgroup = None
    if record.owns_cgroup():
        try:
            cgroup = Cgroup.attach(group, [Path(path) for path in record.made], resources.devices, mknod)
        except FileNotFoundError:
            pass
    started = observed.status not in (Status.CREATING, Status.CREATED)
    init = ContainerProcess.attach(record.id, record.pid, open_init(record), started)
    host = HostContext(group.parent, state_dir.path.parent, bundle=Path(record.bundle))
    return Container.attach(spec, host, cgroup, init)
