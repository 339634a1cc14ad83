"""Start processes that end with their owner, and find those that did not.

The kernel kills a process started here when the *thread* that started it ends (prctl(2),
PR_SET_PDEATHSIG). So `spawn` always uses a thread that lives as long as this process: the main
thread, or one of our own. The working directory of every process is the folder of its VM. That is
how `orphans` finds a process whose owner was killed in the moment between fork and prctl.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from innkeeper.vm.process_info import kill

TERM_SECONDS = 2.0
"""Seconds that a helper process gets between SIGTERM and SIGKILL."""

_Job = tuple[list[str], Path, Path, tuple[int, ...], "queue.SimpleQueue[subprocess.Popen[bytes] | OSError]"]
_spawner: tuple[int, "queue.SimpleQueue[_Job]"] | None = None
_spawner_lock = threading.Lock()


def spawn(setpriv: Path, argv: Sequence[str], *, folder: Path, log: Path, fds: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
    """Start `argv` in `folder`, with its output in `log` and descriptors `fds` inherited.

    It is killed when this process ends, which `setpriv` arranges. Raises OSError.
    """
    return _in_lasting_thread([str(setpriv), "--pdeathsig", "KILL", "--", *argv], folder, log, tuple(fds))


def spawn_python(script: Path, arguments: Sequence[str], *, folder: Path, log: Path, fds: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
    """Start one of our scripts, as `spawn` does. It may use only the standard library.

    The script sets PR_SET_PDEATHSIG itself, which saves the start of setpriv.
    """
    return _in_lasting_thread([sys.executable, "-I", "-S", str(script), str(os.getpid()), *arguments], folder, log, tuple(fds))


def _in_lasting_thread(argv: list[str], folder: Path, log: Path, fds: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    """Start a process from the main thread or from the spawner thread, which never ends.

    PR_SET_PDEATHSIG refers to the thread, not to the process. If a worker thread called fork
    itself, the kernel would kill the VM as soon as that worker ended. A fork copies only the
    calling thread, so the child of a fork needs a spawner of its own.
    """
    if threading.current_thread() is threading.main_thread():
        return _popen(argv, folder, log, fds)
    global _spawner
    with _spawner_lock:
        # None yet, or it belongs to the parent of a fork.
        if _spawner is None or _spawner[0] != os.getpid():
            jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(jobs,), name="spawner", daemon=True).start()
            _spawner = (os.getpid(), jobs)
        jobs = _spawner[1]
    answer: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
    jobs.put((argv, folder, log, fds, answer))
    result = answer.get()
    if isinstance(result, OSError):
        raise result
    return result


def _serve(jobs: "queue.SimpleQueue[_Job]") -> None:
    """Start processes for other threads, for ever."""
    while True:
        argv, folder, log, fds, answer = jobs.get()
        try:
            answer.put(_popen(argv, folder, log, fds))
        except OSError as error:
            answer.put(error)


def _popen(argv: list[str], folder: Path, log: Path, fds: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    with open(log, "ab") as output:
        # A session of its own: Ctrl-C on the terminal goes to the command line only, which then
        # ends the VM in order.
        return subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=fds, start_new_session=True
        )


def leave(process: "subprocess.Popen[bytes]") -> None:
    """Let a process outlive this one. If it ends before, it is reaped, so that no zombie stays.

    Its pipes stay the caller's to close.
    """
    threading.Thread(target=process.wait, name=f"reaper of {process.pid}", daemon=True).start()


def end(process: "subprocess.Popen[bytes]", *, grace: float = TERM_SECONDS) -> int:
    """End `process` and reap it: SIGTERM, then SIGKILL after `grace` seconds.

    Return its return code (negative: the signal that killed it).
    """
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def orphans(folder: Path) -> list[int]:
    """Return the processes, except this one, whose working directory is `folder`."""
    found = []
    wanted = os.path.realpath(folder)
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if os.readlink(f"/proc/{name}/cwd").removesuffix(" (deleted)") == wanted:
                found.append(int(name))
        except OSError:
            continue  # ended, or owned by another user
    return found


def kill_orphans(folder: Path) -> None:
    """Kill helper processes in `folder`, whose owner is dead.

    Waits until they are gone, at most 5 s.
    """
    deadline = time.monotonic() + 5
    while (pids := _own(orphans(folder))) and time.monotonic() < deadline:
        for pid in pids:
            kill(pid, lambda pid: pid in orphans(folder))
        time.sleep(0.01)


def _own(pids: Sequence[int]) -> list[int]:
    """Return the pids that run a helper program of a VM.

    A user's shell may have this working directory too.
    """
    return [
        pid for pid in pids if _program(pid) in ("qemu-system-x86", "qemu-system-aar", "vhost-device-vs", "virtiofsd", "setpriv", "nsenter")
    ]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
