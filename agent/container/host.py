"""Where containers are made: what the caller of the core decides and a spec does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostContext:
    """Where containers are made.

    `cgroup_root` is the cgroup2 directory below which their groups go; `namespaces` (kinds of /proc/PID/ns -> path) replace those that
    a spec asks to be new; `pid_namespace` is the path of the sandbox's pid namespace if containers share one.
    """

    cgroup_root: Path
    state_dir: Path
    namespaces: Mapping[str, str] = field(default_factory=dict)
    pid_namespace: str | None = None
    cgroup_mount: Path | None = None
    """Where an absolute `cgroupsPath` begins; None: below `cgroup_root` as well, so that no spec leaves it."""
    owned: frozenset[str] = frozenset()
    """Kinds of the caller's own namespaces that are there for its containers: what a container may set in them, it may."""
    bundle: Path | None = None
    """None: the container's directory below `state_dir`."""
    shared: tuple[str, ...] = ()
    """Directories that others write as well: links in them are not followed out of them."""
    fail_at: str = ""
    """For tests: the step, of the parent or of the child, that fails."""

    def overrides(self) -> Mapping[str, str]:
        """Paths by kind."""
        return {**self.namespaces, "pid": self.pid_namespace} if self.pid_namespace else self.namespaces

    def bundle_of(self, id: str) -> Path:
        """The directory that hooks are run in and that the state names."""
        return self.bundle or self.state_dir / id

    def group_of(self, path: str, absolute: bool, id: str) -> tuple[Path, str]:
        """(root, path below it) of a container's cgroup; no path: one named by the id."""
        root = self.cgroup_mount if absolute and self.cgroup_mount is not None else self.cgroup_root
        return root, path or id
