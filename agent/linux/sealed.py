"""An immutable in-memory copy of this process's program file.

Made by memfd_create(2), sealed by fcntl(2) F_ADD_SEALS. Nobody can write to it any more.
"""

import errno
import fcntl
import os

from agent.linux.fd import OwnedFd

MFD_EXEC = 0x10
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
EXE = "/proc/self/exe"


def is_sealed() -> bool:
    """Return whether this process's program file is a memfd that cannot be changed."""
    with OwnedFd(os.open(EXE, os.O_RDONLY)) as fd:
        try:
            return fcntl.fcntl(fd, F_GET_SEALS) & SEALS == SEALS
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the file is not a memfd
                raise
            return False


def copy() -> int:
    """Return a descriptor of a sealed copy of this process's program file."""
    try:
        memory = os.memfd_create("innkeeper", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_EXEC)
    except OSError as error:
        # Before Linux 6.3 there is no MFD_EXEC (EINVAL), and every memfd can be executed.
        if error.errno != errno.EINVAL:
            raise
        memory = os.memfd_create("innkeeper", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with OwnedFd(os.open(EXE, os.O_RDONLY)) as source:
        while os.sendfile(memory, source, None, 1 << 30):
            pass
    fcntl.fcntl(memory, F_ADD_SEALS, SEALS)
    return memory
