"""A process's standard streams, the agent's ends: pipes, or the master of a terminal. All non-blocking.

Reading answers as soon as there is anything. After the process has ended, what it left is read for at most DRAIN seconds even though
a grandchild may keep the pipe open; then comes end of file.
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
PIPE_SIZE = 1 << 20
"""bytes"""
F_SETPIPE_SZ = 1031
NULL_DEVICE = os.makedev(1, 3)


class Reader:
    """The reading end of one stream. Each byte goes to one reader; a second one may come while a first is being given up."""

    def __init__(self, fd: Fd) -> None:
        self._fd = fd
        self._ended = False
        self._deadline: float | None = None

    async def read(self, size: int) -> bytes:
        """Up to `size` bytes as soon as there are any; b"" at the end, also when the stream is closed under its reader."""
        while not self._ended:
            try:
                data = os.read(self._fd.fileno(), size)
            except BlockingIOError:
                await self._wait()
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal whose last slave is closed
                    raise
                data = b""
            if not data:
                self._ended = True
            return data
        return b""

    async def _wait(self) -> None:
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0.001)
        try:
            with loop.timeout(left):
                await loop.readable(self._fd)
        except (TimeoutError, loop.DescriptorClosed):
            self._ended = True

    def process_ended(self) -> None:
        """The process is gone: from now on the stream ends when it has nothing for DRAIN seconds."""
        self._deadline = time.monotonic() + DRAIN
        self._fd.wake_readers()

    def end(self) -> None:
        """No more data, now."""
        self._ended = True


def _enlarge(fd: int, size: int = PIPE_SIZE) -> None:
    """A bulk stream is bound by the number of calls, so each call should find much. The kernel gives memory to what is filled only."""
    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, size)
    except PermissionError:
        pass  # over this user's limit for pipes (pipe(7)): the usual size does as well


class Stdio:
    """The three streams. `child_fds` are the program's ends; they belong to the caller until `close_child_ends`.

    `pipe_size`: bytes that the output's pipes hold, where somebody has decided; 0: what suits bulk.
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

    def give_to(self, owner: int) -> None:
        """Make the program's user the owner of its ends, so that it may open them again by /proc/self/fd."""
        for fd in self.child_fds:
            os.fchown(fd, owner, -1)

    def take_master(self, fd: int) -> None:
        """The terminal's master, as the child sent it."""
        self._stdin = self._stdout = Fd(fd)
        os.set_blocking(fd, False)
        self._out = Reader(self._stdout)

    def close_child_ends(self) -> None:
        """Close the program's ends, after the fork."""
        for fd in self.child_fds:
            os.close(fd)
        self.child_fds = ()

    async def read_stdout(self, size: int) -> bytes:
        """Up to `size` bytes of standard output (of the terminal); b"" at the end."""
        if self._out is None:
            raise NotFound("stdout is closed")
        return await self._out.read(size)

    async def read_stderr(self, size: int) -> bytes:
        """Up to `size` bytes of standard error; b"" at the end."""
        if self.terminal:
            raise WrongState("a terminal has no standard error of its own")
        if self._err is None:
            raise NotFound("stderr is closed")
        return await self._err.read(size)

    async def write_stdin(self, data: bytes) -> int:
        """Write all of `data`; its length. Raises WrongState when nobody reads any more, or standard input is closed meanwhile."""
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
        """End of input. On a terminal nothing is closed: its output would end as well."""
        if not self.terminal and self._stdin is not None:
            self._stdin.close()
            self._stdin = None

    def resize(self, rows: int, columns: int) -> None:
        """The terminal's size. Raises WrongState without one."""
        if not self.terminal or self._stdout is None:
            raise WrongState("the process has no terminal")
        fcntl.ioctl(self._stdout.fileno(), termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def process_ended(self) -> None:
        """Start draining."""
        for reader in (self._out, self._err):
            if reader is not None:
                reader.process_ended()

    def close(self) -> None:
        """Close everything; readers that wait get their end."""
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
    """Write what the descriptor takes, once it takes any, and return the rest. Raises OSError."""
    try:
        return data[os.write(fd.fileno(), data) :]
    except BlockingIOError:
        await loop.writable(fd)
        return data


class InheritedStdio(Stdio):
    """The three streams of this process itself, handed on: nothing of them is read or written here."""

    def __init__(self) -> None:
        super().__init__(True)
        self.terminal = False
        self.child_fds = tuple([fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in (0, 1, 2)])

    def give_to(self, owner: int) -> None:
        """Pipes, files and terminals; never the null device, which is everybody's, nor what forbids it."""
        for fd in self.child_fds:
            status = os.fstat(fd)
            if stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE):
                continue
            try:
                os.fchown(fd, owner, -1)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS):
                    raise
