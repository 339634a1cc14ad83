"""Share folders and files of the host with the guest: one virtiofsd per share.

Each runs in a mount namespace of its own, where the share's paths are bound to an empty folder of
the VM, or below it, read-only where asked for. So the host's kernel enforces a read-only path
whatever the guest does, a single file can be shared, and the mounts disappear with the process.
"""

import os
import socket
import subprocess
from functools import cache
from pathlib import Path

from innkeeper.errors import InnkeeperError
from innkeeper.vm import child_processes, console, vsock
from innkeeper.vm.config import Share

WRAPPER = Path(__file__).parent / "virtiofsd_wrapper.py"


class RunningShare:
    """One virtiofsd and QEMU's connection to it.

    All of them are created first and connected afterwards, so that they start in parallel.
    """

    def __init__(self, share: Share, index: int, folder: Path, virtiofsd: Path) -> None:
        self.share = share
        self.log = folder / f"share-{index}.log"
        self._path = folder / f"share-{index}.sock"
        mountpoint = folder / f"share-{index}"
        mountpoint.mkdir(mode=0o700, exist_ok=True)  # a VM may start in the folder of one that failed to
        rest = command(virtiofsd, mountpoint, self._path.name, rust=is_rust(virtiofsd))
        self.socket: socket.socket | None = None
        self.process = child_processes.spawn_python(WRAPPER, [*wrapper_arguments(share, mountpoint), *rest], folder=folder, log=self.log)

    def connect(self) -> None:
        """Connect to virtiofsd once it listens. Raises InnkeeperError.

        QEMU inherits the connection.
        """
        self.socket = vsock.connect_to_helper(self._path, self.process, self.log, f"virtiofsd for {self.share}")
        self._path.unlink(missing_ok=True)

    @property
    def fd(self) -> int:
        """The descriptor that QEMU inherits."""
        assert self.socket is not None, "connect() comes first"
        return self.socket.fileno()

    def failure(self) -> str | None:
        """Return why the share no longer works, or None."""
        if self.process.poll() is None:
            return None
        return f"virtiofsd for {self.share} ended: {' / '.join(console.tail(self.log, 2)) or self.process.returncode}"

    def close(self) -> None:
        """End virtiofsd. To be called after the end of QEMU."""
        if self.socket is None:  # without a connection it would wait for ever
            child_processes.end(self.process)
            return
        self.socket.close()
        try:
            # It ends by itself when QEMU's end of the connection is closed, and then reaps its own
            # child.
            self.process.wait(child_processes.TERM_SECONDS)
        except subprocess.TimeoutExpired:
            child_processes.end(self.process)


def wrapper_arguments(share: Share, mountpoint: Path) -> list[str]:
    """Return the arguments of virtiofsd_wrapper.py between the owner and the command.

    They are the mount namespace, the folder, the number of paths, and mode, name and source of each
    path.
    """
    arguments = [share.namespace, str(mountpoint), str(len(share.paths))]
    for path in share.paths:
        arguments += ["ro" if path.read_only else "rw", path.name, str(path.source.resolve())]
    return arguments


def command(program: Path, mountpoint: Path, socket_name: str, *, rust: bool) -> list[str]:
    """Return virtiofsd's command line.

    QEMU 7.2's C program and the Rust one that followed it share a name and little else. Without
    CAP_MKNOD a guest cannot create a node for one of the host's devices in a folder of the host.
    """
    if not rust:
        options = f"source={quote(mountpoint)},cache=auto,xattr,sandbox=namespace,modcaps=-mknod,log_level=warn"
        return [str(program), "-f", f"--socket-path={socket_name}", "-o", options]
    sandbox = "namespace" if os.geteuid() == 0 else "none"
    argv = [str(program), f"--socket-path={socket_name}", f"--shared-dir={mountpoint}", "--cache=auto", "--xattr", f"--sandbox={sandbox}"]
    return [*argv, "--modcaps=-mknod", "--log-level=warn"]


def quote(path: Path) -> str:
    """Escape a path for libfuse's option parser: a comma needs a backslash before it."""
    return str(path).replace("\\", "\\\\").replace(",", "\\,")


@cache
def is_rust(program: Path) -> bool:
    """Return whether this is the Rust virtiofsd.

    Raises InnkeeperError for the C one if the user is not root, which it needs.
    """
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    rust = "--shared-dir" in done.stdout + done.stderr
    if not rust and os.geteuid() != 0:
        raise InnkeeperError(
            f"{program} shares folders for root only", hint="install the virtiofsd of Debian 13 (written in Rust), or use root"
        )
    return rust
