"""What a container leaves for the action `delete`."""

import os
import subprocess
from pathlib import Path

from innkeeper.shim import cleanup, state
from innkeeper.shim.pb import containerd_pb2 as pb
from innkeeper.shim.state import State


def test_what_is_recorded_is_removed(tmp_path: Path) -> None:
    folder, socket = tmp_path / "folder", tmp_path / "socket"
    (folder / "share").mkdir(parents=True)
    socket.touch()
    left = State(tmp_path)
    left.add_folder(folder)
    left.own_vm(socket)
    assert state.load(tmp_path) == left
    answer = pb.DeleteResponse.FromString(cleanup.delete(tmp_path))
    assert (answer.exit_status, answer.exited_at.seconds > 0) == (137, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_or_not_ours_says_nothing(tmp_path: Path) -> None:
    for text in (None, "", "[]", '{"version": 9}', '{"shim": [1]}'):
        if text is not None:
            (tmp_path / state.NAME).write_text(text)
        assert state.load(tmp_path) == State(tmp_path)


def test_a_shim_that_lives_is_killed_but_no_process_with_its_id(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        for shift, dead in ((1, False), (0, True)):
            left = State(tmp_path, shim=(process.pid, state.start_time(process.pid) + shift))
            left.save()
            cleanup.delete(tmp_path)
            if dead:
                assert process.wait(10) == -9
            else:
                assert process.poll() is None


def test_the_record_names_this_process(tmp_path: Path) -> None:
    left = State(tmp_path)
    left.own_vm(tmp_path / "socket")
    assert left.shim == (os.getpid(), state.start_time(os.getpid()))
