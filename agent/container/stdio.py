"""The agent's ends of a process's standard streams: pipes, or the master of a terminal.

All are non-blocking. A read returns as soon as there is data. After the process has ended, a stream
ends once it has had no data for DRAIN seconds, because a grandchild may keep the pipe open and
there may be no end of file.
"""

import errno
import fcntl
import os
import stat
import struct
import termios
import time

from agent import loop
from agent.errors import NotFound, WrongState
from agent.loop import Fd

DRAIN = 0.5
"""Seconds."""
PIPE_SIZE = 1 << 20
"""Bytes."""
F_SETPIPE_SZ = 1031
NULL_DEVICE = os.makedev(1, 3)


class Reader:
    """The reading end of one stream.

    Each byte goes to one reader. A second reader may arrive while the first one is being cancelled.
    """

    def __init__(self, fd: Fd) -> None:
        self._fd = fd
        self._ended = False
        self._deadline: float | None = None

    async def read(self, size: int) -> bytes:
        """Return up to `size` bytes as soon as there are any.

        Returns b"" at the end, and when the stream is closed meanwhile.
        """
        while not self._ended:
            try:
                data = os.read(self._fd.fileno(), size)
            except BlockingIOError:
                await self._wait()
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # EIO: the last slave of the terminal is closed
                    raise
                data = b""
            if not data:
                self._ended = True
            return data
        return b""

    async def _wait(self) -> None:
        timeout = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.001)
        try:
            with loop.timeout(timeout):
                await loop.readable(self._fd)
        except (TimeoutError, loop.DescriptorClosed):
            self._ended = True

    def process_ended(self) -> None:
        """Let the stream end when it has had no data for DRAIN seconds. The process has ended."""
        self._deadline = time.monotonic() + DRAIN
        self._fd.wake_readers()

    def end(self) -> None:
        """End the stream now."""
        self._ended = True


def _enlarge(fd: int, size: int = PIPE_SIZE) -> None:
    """Enlarge a pipe's buffer to `size` bytes.

    The number of calls limits a bulk stream, so each call should find much. The kernel allocates
    only the pages that are filled.
    """
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, size)
    except PermissionError:
        pass  # over the user's limit for pipes (pipe(7)): the default size works too


class Stdio:
    """The three standard streams of a process.

    `child_fds` are the program's ends. They belong to the caller until `close_child_ends`.
    `pipe_size` is the size of the output pipes in bytes, 0 for one that suits bulk data.
    """

    def __init__(self, terminal: bool, pipe_size: int = 0) -> None:
        self.terminal = terminal
        self._pipe_size = pipe_size
        self.child_fds: tuple[int, ...] = ()
        self._stdin: Fd | None = None
        self._stdout: Fd | None = None
        self._stderr: Fd | None = None
        self._out: Reader | None = None
        self._err: Reader | None = None
        if not terminal:
            try:
                self._open_pipes()
            except OSError:
                self.close()
                raise

    def _open_pipes(self) -> None:
        read_end, write_end = os.pipe()
        self._stdin, self.child_fds = Fd(write_end), (read_end,)
        read_end, write_end = os.pipe()
        self._stdout, self.child_fds = Fd(read_end), (*self.child_fds, write_end)
        read_end, write_end = os.pipe()
        self._stderr, self.child_fds = Fd(read_end), (*self.child_fds, write_end)
        for fd in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(fd.fileno(), False)
        _enlarge(self._stdin.fileno())
        _enlarge(self._stdout.fileno(), self._pipe_size or PIPE_SIZE)
        if self._pipe_size:
            _enlarge(self._stderr.fileno(), self._pipe_size)
        self._out, self._err = Reader(self._stdout), Reader(self._stderr)

    def chown(self, owner: int) -> None:
        """Make the program's user the owner of its ends.

        Otherwise it could not open them again by /proc/self/fd.
        """
        for fd in self.child_fds:
            os.fchown(fd, owner, -1)

    def set_pty_master(self, fd: int) -> None:
        """Take over the master of the terminal, which the child has sent."""
        self._stdin = self._stdout = Fd(fd)
        os.set_blocking(fd, False)
        self._out = Reader(self._stdout)

    def close_child_ends(self) -> None:
        """Close the program's ends, after the fork."""
        for fd in self.child_fds:
            os.close(fd)
        self.child_fds = ()

    async def read_stdout(self, size: int) -> bytes:
        """Return up to `size` bytes of standard output, or of the terminal. b"" at the end."""
        if self._out is None:
            raise NotFound("stdout is closed")
        return await self._out.read(size)

    async def read_stderr(self, size: int) -> bytes:
        """Return up to `size` bytes of standard error. b"" at the end."""
        if self.terminal:
            raise WrongState("a terminal has no standard error of its own")
        if self._err is None:
            raise NotFound("stderr is closed")
        return await self._err.read(size)

    async def write_stdin(self, data: bytes) -> int:
        """Write all of `data`, and return its length.

        Raises WrongState if nobody reads any more, or if standard input is closed meanwhile.
        """
        view = memoryview(data)
        while view:
            if self._stdin is None:
                raise WrongState("stdin is closed")
            try:
                view = await _write(self._stdin, view)
            except loop.DescriptorClosed:
                raise WrongState("stdin is closed") from None
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                raise WrongState("stdin: nobody reads it any more (EPIPE)") from error
        return len(data)

    def close_stdin(self) -> None:
        """Signal end of input by closing the pipe.

        A terminal stays open: its output would end as well.
        """
        if not self.terminal and self._stdin is not None:
            self._stdin.close()
            self._stdin = None

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size. Raises WrongState if there is no terminal."""
        if not self.terminal or self._stdout is None:
            raise WrongState("the process has no terminal")
        fcntl.ioctl(self._stdout.fileno(), termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def process_ended(self) -> None:
        """Start the DRAIN timeout of both output streams."""
        for reader in (self._out, self._err):
            if reader is not None:
                reader.process_ended()

    def close(self) -> None:
        """Close everything. Waiting readers get end of file."""
        for reader in (self._out, self._err):
            if reader is not None:
                reader.end()
        self._out = self._err = None
        self.close_child_ends()
        for fd in (self._stdin, self._stdout, self._stderr):
            if fd is not None:
                fd.close()
        self._stdin = self._stdout = self._stderr = None


async def _write(fd: Fd, data: memoryview) -> memoryview:
    """Write once the descriptor accepts data, and return what is left. Raises OSError."""
    try:
        return data[os.write(fd.fileno(), data) :]
    except BlockingIOError:
        await loop.writable(fd)
        return data


class InheritedStdio(Stdio):
    """This process's own standard streams, passed on to the program.

    Nothing is read from them or written to them here.
    """

    def __init__(self) -> None:
        super().__init__(True)
        self.terminal = False
        self.child_fds = tuple([fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in (0, 1, 2)])

    def chown(self, owner: int) -> None:
        """chown(2) pipes, files and terminals to the program's user.

        Skips /dev/null, which all processes share, and sockets. Ignores EPERM, EINVAL and EROFS.
        """
        for fd in self.child_fds:
            status = os.fstat(fd)
            if stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE):
                continue
            try:
                os.fchown(fd, owner, -1)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                    raise
