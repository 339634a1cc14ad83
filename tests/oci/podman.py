"""podman with its storage, its network's leases and its containers in a test's own folder, and our command as its runtime."""

import os
import subprocess
from pathlib import Path
from typing import Any

from innkeeper import programs

SECONDS = 120.0
# Where root lacks CAP_SYS_RESOURCE it cannot raise limits, and where cgroup v1 has the controllers there is none for podman's default of
# 2048 processes: both are for the machine's owner to configure. No network unless it is asked for: the default one has a fixed name.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
pids_limit = 0
log_driver = "k8s-file"
netns = "none"
[network]
network_config_dir = "{folder}/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["innkeeper-oci"]
"""


class Podman:
    """The engine's command."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        folder.mkdir(parents=True)
        configuration = folder / "containers.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder))
        self._environment = {**os.environ, "CONTAINERS_CONF": str(configuration), "TMPDIR": str(folder)}
        places = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp", "--storage-driver", "vfs"]
        self._argv = [str(programs.require("podman")), *places, "--runtime", str(runtime)]

    def argv(self, *words: str | Path) -> list[str]:
        """The command line."""
        return [*self._argv, *map(str, words)]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that go with it."""
        return self._environment

    def try_(self, *words: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a verb, whatever comes of it."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "timeout": SECONDS, **options}
        return subprocess.run(self.argv(*words), env=self._environment, capture_output=True, text=True, check=False, **settings)

    def __call__(self, *words: str | Path, **options: Any) -> str:
        """Run a verb that succeeds; its output without the newline at its end."""
        done = self.try_(*words, **options)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.rstrip("\n")

    def refuses(self, *words: str | Path, status: int | None = None) -> str:
        """Run a verb that fails; what it says."""
        done = self.try_(*words)
        assert done.returncode != 0, (words, done.stdout)
        assert status is None or done.returncode == status, (words, done.returncode, done.stderr)
        return done.stderr

    def end(self) -> None:
        """Remove every container."""
        self("rm", "--all", "--force", "--time", "0")
