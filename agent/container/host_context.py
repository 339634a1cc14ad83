"""The environment that containers are created in: the caller's choices that a spec cannot make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.container.spec.linux import Linux


@dataclass(frozen=True, slots=True)
class HostContext:
    """The environment that containers are created in.

    `cgroup_root` is the cgroup2 directory below which their cgroups go. `namespaces` (kinds of
    /proc/PID/ns -> path) are joined in place of those that a spec wants new. `pid_namespace` is the
    path of the sandbox's pid namespace if containers share one.
    """

    cgroup_root: Path
    state_dir: Path
    namespaces: Mapping[str, str] = field(default_factory=dict)
    pid_namespace: str | None = None
    cgroup_mount: Path | None = None
    """Where an absolute `cgroupsPath` begins.

    None: below `cgroup_root` as well, so that no spec can leave it.
    """
    owned: frozenset[str] = frozenset()
    """Kinds of the caller's namespaces that exist for its containers.

    Containers may set in them what they may set in their own, such as sysctls.
    """
    bundle: Path | None = None
    """The bundle. None: the container's directory below `state_dir`."""
    shared: tuple[str, ...] = ()
    """Directories that others can write. Symbolic links in them are not followed out of them."""

    def overrides(self) -> Mapping[str, str]:
        """Return the paths of namespaces to join by kind, including `pid_namespace`."""
        return {**self.namespaces, "pid": self.pid_namespace} if self.pid_namespace else self.namespaces

    def bundle_of(self, id: str) -> Path:
        """Return the directory that hooks run in and that the state document names."""
        return self.bundle or self.state_dir / id

    def cgroup_of(self, linux: Linux, id: str) -> tuple[Path, str]:
        """Return a container's cgroup as (root, path below it).

        Without a path it is named by the id.
        """
        root = self.cgroup_mount if linux.cgroup_absolute and self.cgroup_mount is not None else self.cgroup_root
        return root, linux.cgroups_path or id
