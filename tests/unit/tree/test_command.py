"""The command `test` of a clone."""

import subprocess

from tests.vm.command import ARGV, environment


def test_a_path_that_is_not_there_is_named_before_anything_is_built() -> None:
    argv = [*ARGV, "test", "-q", "tests/unit/no_such.py"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    assert (done.returncode, done.stderr) == (125, "innkeeper: tests/unit/no_such.py: no such file or folder\n")
