"""Setting `lo` up at boot, by ioctl (netdevice(7)), so that start-up imports no netlink code."""

import _socket as socket  # the public module imports enum and selectors, which start-up does without
import fcntl
import struct

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
IFREQ = "16sh22x"


def loopback_up() -> None:
    """Set IFF_UP on `lo`. The kernel then adds the addresses 127.0.0.1/8 and ::1/128.

    Raises OSError with the name of the link.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
    try:
        request = struct.pack(IFREQ, b"lo", 0)
        _, flags = struct.unpack(IFREQ, fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, request))
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, struct.pack(IFREQ, b"lo", flags | IFF_UP))
    except OSError as error:
        raise OSError(error.errno, error.strerror, "lo") from None
    finally:
        sock.close()
