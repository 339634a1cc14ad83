"""The container of ours that a template has run: its program, and its image."""

import os
import signal
import subprocess
from pathlib import Path

from innkeeper.engine import warm_up
from innkeeper.image.elf import static_program


def test_the_program_ends_without_arguments_and_waits_with_one(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(static_program(warm_up.PROGRAM))
    program.chmod(0o755)
    assert subprocess.run([program], check=False).returncode == 0
    waiting = subprocess.Popen([program, "wait"])
    try:
        os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert waiting.poll() is None
    finally:
        waiting.kill()
    assert waiting.wait() == -signal.SIGKILL


def test_the_disks_are_larger_than_any_that_a_clone_may_have(tmp_path: Path) -> None:
    image = warm_up._image_disk(tmp_path)
    assert image.stat().st_size == warm_up.PLACEHOLDER
    assert image.stat().st_blocks * 512 < 1 << 20
    with image.open("rb") as file:
        assert file.read(2048)[1024:1028] == (0xE0F5E1E2).to_bytes(4, "little")
