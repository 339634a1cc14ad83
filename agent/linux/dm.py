"""The device mapper's ioctls: create, load, start and remove a mapped device.

Source: the kernel's documentation "device-mapper".
"""

import errno
import fcntl
import os
import struct
import time

from agent.linux.fd import OwnedFd

CONTROL = "/dev/mapper/control"
CONTROL_NUMBER = (10, 236)
DM_DEV_CREATE = 0xC138FD03
DM_DEV_REMOVE = 0xC138FD04
DM_DEV_SUSPEND = 0xC138FD06
DM_TABLE_LOAD = 0xC138FD09
DM_READONLY_FLAG = 1
BUSY_TRIES = 50
BUSY_PAUSE = 0.02

_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET = struct.Struct("=QQiI16s")
assert _HEADER.size == 312
assert _TARGET.size == 40


def create(name: str, sectors: int, target: str, parameters: str) -> str:
    """Create and start a read-only device that one target covers. Return the path of its node.

    Raises OSError, and then leaves no device behind.
    """
    with OwnedFd(_open_control()) as control:
        answer = _control(control, DM_DEV_CREATE, name)
        device = _HEADER.unpack_from(answer)[10]
        try:
            _control(control, DM_TABLE_LOAD, name, _table(sectors, target, parameters), targets=1)
            # Without DM_SUSPEND_FLAG this call resumes, which starts the device.
            _control(control, DM_DEV_SUSPEND, name)
        except BaseException:
            _control(control, DM_DEV_REMOVE, name)
            raise
        # The kernel's own encoding of a device number (new_encode_dev).
        return f"/dev/dm-{device & 0xFF | device >> 12 & 0xFFF00}"


def remove(name: str) -> None:
    """Remove a device, or do nothing if it does not exist.

    Retries while the device is busy: an unmount releases it a moment later. Raises OSError if it
    stays busy for BUSY_TRIES * BUSY_PAUSE seconds.
    """
    with OwnedFd(_open_control()) as control:
        for last in (False,) * BUSY_TRIES + (True,):
            try:
                _control(control, DM_DEV_REMOVE, name)
                return
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno != errno.EBUSY or last:
                    raise
                time.sleep(BUSY_PAUSE)


def _open_control() -> int:
    """Open the device mapper's control device. Make its node first if udev has not."""
    try:
        return os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(CONTROL), exist_ok=True)
        os.mknod(CONTROL, 0o600 | 0o020000, os.makedev(*CONTROL_NUMBER))
        return os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)


def _table(sectors: int, target: str, parameters: str) -> bytes:
    text = parameters.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return _TARGET.pack(0, sectors, 0, _TARGET.size + len(text), target.encode()) + text


def _control(fd: int, call: int, name: str, data: bytes = b"", targets: int = 0) -> bytes:
    size = _HEADER.size + len(data)
    flags = DM_READONLY_FLAG if call == DM_TABLE_LOAD else 0
    header = _HEADER.pack(4, 0, 0, size, _HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer = bytearray(header + data)
    try:
        fcntl.ioctl(fd, call, buffer)
    except OSError as error:
        raise OSError(error.errno, f"device mapper: {error.strerror}", name) from None
    return bytes(buffer)
