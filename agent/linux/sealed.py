"""A copy of this process's program file in memory that nobody can write any more (memfd_create(2), fcntl(2) F_ADD_SEALS)."""

import errno
import fcntl
import os

MFD_EXEC = 0x10
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 1, 2, 4, 8
SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
EXE = "/proc/self/exe"


def is_sealed() -> bool:
    """Whether this process's program file is a memfd that cannot be changed."""
    fd = os.open(EXE, os.O_RDONLY)
    try:
        return fcntl.fcntl(fd, F_GET_SEALS) & SEALS == SEALS
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a file that is no memfd answers
            raise
        return False
    finally:
        os.close(fd)


def copy() -> int:
    """A descriptor of a sealed copy of this process's program file."""
    try:
        memory = os.memfd_create("innkeeper", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.3 every memfd can be executed
            raise
        memory = os.memfd_create("innkeeper", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(EXE, os.O_RDONLY)
    try:
        while os.sendfile(memory, source, None, 1 << 30):
            pass
    finally:
        os.close(source)
    fcntl.fcntl(memory, F_ADD_SEALS, SEALS)
    return memory
