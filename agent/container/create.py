"""Creation of a container's first process: the parent's half, a table of steps like the child's.

When a step fails, the steps after it do not run. The container then undoes the earlier ones.
"""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from agent.container import hooks, net_devices
from agent.container.cgroup.manager import Cgroup
from agent.container.fd_set import FdSet
from agent.container.host_context import HostContext
from agent.container.init import child
from agent.container.init.prepare import check_ids, host_id, init_plan, process_plan
from agent.container.namespaces import Namespaces, TemporaryNamespaces
from agent.container.process import ContainerProcess
from agent.container.rootfs.idmap import Mappings, mappings_of
from agent.container.rootfs.mount_plan import CGROUP_TYPES, MountPlan
from agent.container.spec.document import Spec
from agent.container.spec.linux import sysctl_namespace
from agent.container.spec.mounts import mapping_lines
from agent.container.spec.process import NO_PROCESS, Process
from agent.container.state import State
from agent.container.step_times import mark
from agent.errors import Refused, StepFailed
from agent.linux import mount as m
from agent.linux import process as p
from agent.linux import procfs

if TYPE_CHECKING:
    from agent.container.init.plan import ChildPlan


class ContainerBuilder:
    """Creates the first process of one container.

    `hooks_ran` is True once hooks may have run, so that the poststop hooks must run in the end.
    """

    def __init__(self, id: str, spec: Spec, host: HostContext, init: ContainerProcess, state: State) -> None:
        self.spec = spec
        self.host = host
        self.init = init
        self.state = state
        self.process: Process = spec.process or NO_PROCESS
        self.cgroup: Cgroup | None = None
        self.uid_mappings: Mappings = spec.linux.uid_mappings
        self.gid_mappings: Mappings = spec.linux.gid_mappings
        self.warnings: list[str] = []
        self.hooks_ran = False
        self._id = id
        self._fd_set = FdSet(shared=host.shared)
        self._namespaces: Namespaces
        self._plan: ChildPlan

    async def run(self) -> None:
        """Run all steps. Raises Refused, StepFailed."""
        try:
            for name, step, _why in STEPS:
                try:
                    await step(self)
                except OSError as error:
                    raise StepFailed(name, str(error), error.errno or 0) from error
                mark(f"agent: {name}")
        finally:
            self._fd_set.close()

    async def prepare(self) -> None:
        linux = self.spec.linux
        self._namespaces = namespaces = Namespaces(linux.namespaces, self.host.overrides(), self._fd_set)
        if namespaces.joins_own("user"):
            raise Refused("linux.namespaces[user].path", "is the agent's own, which gives the container nothing")
        if namespaces.joins_own("mnt") or namespaces.joins_host_mounts():
            raise Refused("linux.namespaces[mount].path", "is the machine's own: the container's root would take the place of everybody's")
        for path, _value in linux.sysctl:
            kind = sysctl_namespace(path)
            if kind is not None and kind not in self.host.owned and namespaces.joins_own(kind):
                raise Refused(f"linux.sysctl.{path.replace('/', '.')}", f"the {kind} namespace is not the container's own")
        if linux.net_devices and namespaces.joins_own("net"):
            raise Refused("linux.netDevices", "the network namespace is not the container's own")
        self._plan = process_plan(self.process, self._fd_set.add(self.init.control_pair()), linux.seccomp)
        if namespaces.user_fd < 0:
            self._plan.owner = check_ids(self.process, self.uid_mappings, self.gid_mappings)

    async def make_cgroup(self) -> None:
        linux = self.spec.linux
        root, name = self.host.cgroup_of(linux, self._id)
        self.cgroup = Cgroup.create(root, name, linux.resources, mknod=self.process.has_mknod)

    async def complete_plan(self) -> None:
        assert self.cgroup is not None
        plan, namespaces, spec = self._plan, self._namespaces, self.spec
        mounts = MountPlan(spec, str(self.cgroup.path), self._fd_set, namespaces.user_fd)
        init_plan(spec, self.process, plan, mounts, self._fd_set)
        plan.steps = child.INIT_STEPS
        plan.cgroup = self.cgroup.fd
        plan.clone_flags = namespaces.flags
        plan.unshare = namespaces.unshare
        plan.new_root = "user" in spec.linux.namespaces
        plan.waits_for_parent = plan.new_root or bool(spec.linux.net_devices)
        plan.state = self.state.halves("created")
        self.warnings += plan.warnings + mounts.warnings
        self.init.request_handlers |= {b"mounted": self._leave_runtime, b"clocks": self._offset_clocks}

    async def fork(self) -> None:
        plan, namespaces, fd_set = self._plan, self._namespaces, self._fd_set
        if namespaces.user_fd >= 0:
            await self.init.fork_via_intermediate(plan, fd_set.fds, namespaces.all_joined)
        else:
            entered = [] if namespaces.pid_fd is None else [(namespaces.pid_fd, p.CLONE_NEWPID)]
            if namespaces.flags & p.CLONE_NEWUSER:
                entered += namespaces.join
            else:
                plan.join = namespaces.join
            with TemporaryNamespaces(entered):
                self.init.fork(plan, fd_set.fds)
        # Close the parent's copies. The child's end of the control socket is the important one: the
        # parent sees end of file (the child has executed its program, or died) only after its last
        # copy is closed.
        fd_set.close_all_but(namespaces.fd_of("net"))

    async def map_ids(self) -> None:
        if self._namespaces.user_fd >= 0:
            self._read_mappings()
            self.init.chown_stdio(check_ids(self.process, self.uid_mappings, self.gid_mappings))
        elif "user" in self.spec.linux.namespaces:
            self._write_mappings()
        if self._delegates():
            assert self.cgroup is not None
            self.cgroup.delegate(host_id(self.process.user.uid, self.uid_mappings, "process.user.uid"))

    def _write_mappings(self) -> None:
        """Write the id mappings of the child's user namespace.

        setgroups(2) stays permitted, because the agent is privileged (user_namespaces(7)).
        """
        for name, mappings in (("gid_map", self.gid_mappings), ("uid_map", self.uid_mappings)):
            try:
                procfs.write(f"{self.init.pid}/{name}", mapping_lines(mappings))
            except OSError as error:
                raise StepFailed("map ids", f"{name}: {error.strerror}", error.errno or 0) from error

    def _read_mappings(self) -> None:
        """Read the id mappings of the user namespace that is joined.

        Raises Refused if the spec lists other ones.
        """
        linux = self.spec.linux
        self.uid_mappings, self.gid_mappings = mappings_of(self.init.pid)
        for field, listed, found in (
            ("linux.uidMappings", linux.uid_mappings, self.uid_mappings),
            ("linux.gidMappings", linux.gid_mappings, self.gid_mappings),
        ):
            if listed and sorted(listed) != sorted(found):
                raise Refused(field, "the user namespace that is joined has others")

    def _delegates(self) -> bool:
        """Return whether the container manages its own cgroups.

        It does with its own user and cgroup namespace, and with a cgroup mount that it may write.
        """
        namespaces = self.spec.linux.namespaces
        if "user" not in namespaces or namespaces.get("cgroup", "") is not None:
            return False
        return any(mount.type in CGROUP_TYPES and mount.clear & m.MOUNT_ATTR_RDONLY for mount in self.spec.mounts)

    async def move_devices(self) -> None:
        devices = self.spec.linux.net_devices
        if not devices:
            return
        joined = self._namespaces.fd_of("net")
        fd = joined if joined >= 0 else procfs.open_link(f"{self.init.pid}/ns/net")
        try:
            net_devices.move(devices, fd)
        finally:
            if fd != joined:
                os.close(fd)

    async def await_created(self) -> None:
        if self._plan.waits_for_parent:
            self.init.send(b"go")
        await self.init.wait_created(hooks.total_timeout(self.spec.hooks.create_container))
        self.hooks_ran = True

    async def _leave_runtime(self, record: bytes) -> bytes:
        """Bind the device rules, then run the prestart and createRuntime hooks.

        The child's request when its mounts and device nodes are made. The device rules need not
        permit these, so they are bound only now, before any foreign code runs.
        """
        assert self.cgroup is not None
        self.cgroup.devices.bind(self.spec.linux.resources.devices)
        if not self._plan.has_hooks:
            return b"hooked"
        self.hooks_ran = True
        state = self.state.encode("created", self.init.pid)
        for listed in (self.spec.hooks.prestart, self.spec.hooks.create_runtime):
            await hooks.run(listed, state, self.state.bundle)
        return b"hooked"

    async def _offset_clocks(self, record: bytes) -> bytes:
        try:
            procfs.write(f"{self.init.pid}/timens_offsets", self._plan.time_offsets)
        except OSError as error:
            raise StepFailed("offset clocks", error.strerror or str(error), error.errno or 0) from error
        return b"offset"


STEPS: tuple[tuple[str, Callable[[ContainerBuilder], Awaitable[None]], str], ...] = (
    ("prepare", ContainerBuilder.prepare, "what is to be joined is checked, and the filter compiled, before anything is made"),
    ("make cgroup", ContainerBuilder.make_cgroup, "limits hold before a process is in it"),
    ("complete plan", ContainerBuilder.complete_plan, "sources are opened here, once, in the agent's mount namespace"),
    ("fork", ContainerBuilder.fork, "into the cgroup and the new namespaces: there is no moment outside of them"),
    ("map ids", ContainerBuilder.map_ids, "only the parent may"),
    ("move network devices", ContainerBuilder.move_devices, "only the parent sees them"),
    ("await created", ContainerBuilder.await_created, "a failure of the child's becomes this call's"),
)
