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
from agent.oci.state_dir import Place
from agent.oci.status import Condition, open_first


def attach(place: Place, condition: Condition) -> Container:
    """Return the container as the core's object.

    Call it inside the event loop, which watches the first process from now on. A cgroup that no
    longer exists is left out.
    """
    record = condition.record
    spec = parse_spec(place.load_config())
    group = Path(record.cgroup)
    mknod = bool(spec.process and spec.process.capabilities and spec.process.capabilities.bounding >> CAP_MKNOD & 1)
    resources = parse_resources(record.resources) if record.resources else spec.linux.resources
    cgroup = None
    if record.owns_group():
        try:
            cgroup = Cgroup.attach(group, [Path(path) for path in record.made], resources.devices, mknod)
        except FileNotFoundError:
            pass
    started = condition.status not in (Status.CREATING, Status.CREATED)
    init = ContainerProcess.attach(record.id, record.pid, open_first(record), started)
    host = HostContext(group.parent, place.path.parent, bundle=Path(record.bundle))
    return Container.attach(spec, host, cgroup, init)
