"""A socket that takes every TCP connection to 127.0.0.1 in a network namespace, whatever its port.

containerd forwards a port of a pod by connecting to it at localhost of the pod's network namespace.
The programs of the pod are in the guest, whose localhost is another one. So a BPF program of type
sk_lookup (Linux 5.9, the kernel's documentation "prog_sk_lookup") is attached to the namespace. The
kernel asks it for the listening socket of a connection, and it names ours. The connection keeps its
address: getsockname(2) tells the port. All of it goes with the descriptors: nothing is left in the
namespace.
"""

import ctypes
import os
import platform
import socket
import struct

BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_LINK_CREATE = 0, 2, 5, 28
BPF_MAP_TYPE_SOCKMAP = 15
BPF_PROG_TYPE_SK_LOOKUP = 30
BPF_SK_LOOKUP = 36
MAP_LOOKUP_ELEM, SK_RELEASE, SK_ASSIGN = 1, 86, 124
"""Functions of the kernel that a program can call."""
FAMILY, PROTOCOL, LOCAL_IP4 = 8, 12, 40
"""Offsets in struct bpf_sk_lookup."""
SYS_BPF = {"x86_64": 321, "aarch64": 280}
BACKLOG = 128
ATTRIBUTES = 128
"""Bytes of union bpf_attr: at least what the kernel reads."""

# Opcodes (the kernel's documentation "instruction-set").
LOAD_U32, STORE_U32, LOAD_IMM64 = 0x61, 0x62, 0x18
MOVE, MOVE_IMM, ADD_IMM = 0xBF, 0xB7, 0x07
JUMP_NOT_EQUAL, JUMP_EQUAL, CALL, EXIT = 0x55, 0x15, 0x85, 0x95
PSEUDO_MAP_FD = 1

_libc = ctypes.CDLL(None, use_errno=True)


def open_listener(namespace: str) -> tuple[socket.socket, int]:
    """Return the listening socket, and the descriptor that keeps the program attached.

    The calling process must be in the network namespace at the path `namespace`. Raises OSError.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        return listener, _attach(listener, namespace)
    except BaseException:
        listener.close()
        raise


def _attach(listener: socket.socket, namespace: str) -> int:
    opened = [_bpf(BPF_MAP_CREATE, struct.pack("=IIII", BPF_MAP_TYPE_SOCKMAP, 4, 4, 1))]
    try:
        key, value = ctypes.c_uint32(0), ctypes.c_uint32(listener.fileno())
        _bpf(BPF_MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", opened[0], ctypes.addressof(key), ctypes.addressof(value), 0))
        opened.append(_load(_program(opened[0])))
        opened.append(os.open(namespace, os.O_RDONLY | os.O_CLOEXEC))
        return _bpf(BPF_LINK_CREATE, struct.pack("=IIII", opened[1], opened[2], BPF_SK_LOOKUP, 0))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _load(program: bytes) -> int:
    """Return the descriptor of a program. Raises OSError."""
    code, license_text = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"none")
    head = struct.pack("=IIQQ", BPF_PROG_TYPE_SK_LOOKUP, len(program) // 8, ctypes.addressof(code), ctypes.addressof(license_text))
    # No log, name and features; the attach type is at byte 68.
    return _bpf(BPF_PROG_LOAD, head.ljust(68, b"\0") + struct.pack("=I", BPF_SK_LOOKUP))


def _program(sockets: int) -> bytes:
    """Return the program: TCP to 127.0.0.1 goes to the socket in the map `sockets`, all else as ever."""
    loopback = struct.unpack("=i", socket.inet_aton("127.0.0.1"))[0]
    find = [
        _instruction(STORE_U32, 10, 0, -4, 0),
        _instruction(MOVE, 2, 10),
        _instruction(ADD_IMM, 2, 0, 0, -4),
        _instruction(LOAD_IMM64, 1, PSEUDO_MAP_FD, 0, sockets) + bytes(8),
        _instruction(CALL, immediate=MAP_LOOKUP_ELEM),
        _instruction(JUMP_EQUAL, 0, 0, 7, 0),
        _instruction(MOVE, 7, 0),
        _instruction(MOVE, 1, 6),
        _instruction(MOVE, 2, 7),
        _instruction(MOVE_IMM, 3, 0, 0, 0),
        _instruction(CALL, immediate=SK_ASSIGN),
        _instruction(MOVE, 1, 7),
        _instruction(CALL, immediate=SK_RELEASE),
    ]
    body = b"".join(find)
    checks = ((FAMILY, socket.AF_INET), (PROTOCOL, socket.IPPROTO_TCP), (LOCAL_IP4, loopback))
    for offset, wanted in reversed(checks):
        skipped = len(body) // 8
        body = _instruction(LOAD_U32, 2, 6, offset) + _instruction(JUMP_NOT_EQUAL, 2, 0, skipped, wanted) + body
    return _instruction(MOVE, 6, 1) + body + _instruction(MOVE_IMM, 0, 0, 0, 1) + _instruction(EXIT)


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, immediate)


def _bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, ATTRIBUTES)
    result = int(_libc.syscall(SYS_BPF[platform.machine()], command, buffer, ATTRIBUTES))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf(2) command {command}: {os.strerror(number)}")
    return result
