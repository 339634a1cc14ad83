"""The mounts of this machine that a test looks at before and after."""

from pathlib import Path

from innkeeper.paths import cache_root

OF_OTHERS = ("/run/", "/var/", "/tmp/")
"""Where container engines and other test runs mount, which come and go."""


def mounts(session: Path) -> list[str]:
    """Return the lines of mountinfo (proc(5)), those of others left out. `session` is the folder of this test run."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    others = (*OF_OTHERS, f"{cache_root()}/")
    return [line for line in lines if not (point := line.split()[4]).startswith(others) or point.startswith(f"{session}/")]
