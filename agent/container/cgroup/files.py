"""Reading and writing the files of a cgroup, relative to a descriptor of its directory."""

import errno
import os


def read(cgroup: int, name: str) -> str:
    """Return the content of a file.

    Returns "" if the file does not exist, the cgroup was removed (ENODEV) or the file does not
    apply to it (EOPNOTSUPP).
    """
    try:
        fd = os.open(name, os.O_RDONLY, dir_fd=cgroup)
    except FileNotFoundError:
        return ""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise
    finally:
        os.close(fd)


def write(cgroup: int, name: str, value: str) -> None:
    """Write a value to a file that exists. Raises OSError."""
    fd = os.open(name, os.O_WRONLY, dir_fd=cgroup)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
