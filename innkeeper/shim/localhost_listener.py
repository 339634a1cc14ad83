"""Sockets for every TCP connection to 127.0.0.1 and ::1 in a network namespace, on any port.

containerd forwards a port of a pod by connecting to it at localhost of the pod's network namespace.
The programs of the pod are in the guest, whose localhost is another one. So a BPF program of type
sk_lookup (Linux 5.9, the kernel's documentation "prog_sk_lookup") is attached to the namespace. The
kernel asks it for the listening socket of a connection, and it names the one of ours. The
connection keeps its address: getsockname(2) tells the port. All of it goes with the descriptors:
nothing is left in the namespace.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.libc import check, libc

BPF_MAP_CREATE, BPF_MAP_UPDATE_ELEM, BPF_PROG_LOAD, BPF_LINK_CREATE = 0, 2, 5, 28
BPF_MAP_TYPE_SOCKMAP = 15
BPF_PROG_TYPE_SK_LOOKUP = 30
BPF_SK_LOOKUP = 36
MAP_LOOKUP_ELEM, SK_RELEASE, SK_ASSIGN = 1, 86, 124
"""Functions of the kernel that a program can call."""
FAMILY, PROTOCOL, LOCAL_IP4, LOCAL_IP6 = 8, 12, 40, 44
"""Offsets in struct bpf_sk_lookup."""
FAMILIES = (socket.AF_INET, socket.AF_INET6)
"""The address families, by the key of their socket in the program's map."""
SYS_BPF = {"x86_64": 321, "aarch64": 280}
BACKLOG = 128
ATTRIBUTES = 128
"""Bytes of union bpf_attr: at least what the kernel reads."""

# Opcodes (the kernel's documentation "instruction-set").
LOAD_U32, STORE_U32, LOAD_IMM64 = 0x61, 0x62, 0x18
MOVE, MOVE_IMM, ADD_IMM = 0xBF, 0xB7, 0x07
JUMP, JUMP_NOT_EQUAL, JUMP_EQUAL, CALL, EXIT = 0x05, 0x55, 0x15, 0x85, 0x95
PSEUDO_MAP_FD = 1


def open_listeners() -> tuple[list[socket.socket], int]:
    """Return the listening sockets, and the descriptor that keeps the program attached.

    They are in this thread's network namespace. There is one socket for 127.0.0.1, and one for ::1
    if the namespace has that. Raises OSError.
    """
    listeners = [_listener(socket.AF_INET, "127.0.0.1")]
    try:
        if (sixth := _listener_of_ipv6()) is not None:
            listeners.append(sixth)
        return listeners, _attach(listeners)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise


def _listener(family: socket.AddressFamily, address: str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((address, 0))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _listener_of_ipv6() -> socket.socket | None:
    try:
        return _listener(socket.AF_INET6, "::1")
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return None  # IPv6 is off
        raise


def _attach(listeners: list[socket.socket]) -> int:
    opened = [_bpf(BPF_MAP_CREATE, struct.pack("=IIII", BPF_MAP_TYPE_SOCKMAP, 4, 4, len(FAMILIES)))]
    try:
        for listener in listeners:
            key, value = ctypes.c_uint32(FAMILIES.index(listener.family)), ctypes.c_uint32(listener.fileno())
            _bpf(BPF_MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", opened[0], ctypes.addressof(key), ctypes.addressof(value), 0))
        opened.append(_load(_program(opened[0])))
        opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
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


class Step(NamedTuple):
    """An instruction: opcode, registers, and a number or the label to jump to."""

    code: int
    target: int = 0
    source: int = 0
    offset: int | str = 0
    immediate: int = 0


def _program(sockets: int) -> bytes:
    """Return the program that gives TCP to 127.0.0.1 or ::1 to the sockets in the map `sockets`.

    Each family has its socket. Other connections are left alone.
    """
    last_word = struct.unpack("=i", socket.inet_pton(socket.AF_INET6, "::1")[12:])[0]
    return _assembled(
        [
            Step(MOVE, 6, 1),
            *_expect(PROTOCOL, socket.IPPROTO_TCP, "pass"),
            *_expect(FAMILY, socket.AF_INET, "6"),
            *_expect(LOCAL_IP4, struct.unpack("=i", socket.inet_aton("127.0.0.1"))[0], "pass"),
            Step(STORE_U32, 10, 0, -4, FAMILIES.index(socket.AF_INET)),
            Step(JUMP, offset="find"),
            "6",
            *_expect(FAMILY, socket.AF_INET6, "pass"),
            *(step for word in range(3) for step in _expect(LOCAL_IP6 + 4 * word, 0, "pass")),
            *_expect(LOCAL_IP6 + 12, last_word, "pass"),
            Step(STORE_U32, 10, 0, -4, FAMILIES.index(socket.AF_INET6)),
            "find",
            Step(MOVE, 2, 10),
            Step(ADD_IMM, 2, 0, 0, -4),
            Step(LOAD_IMM64, 1, PSEUDO_MAP_FD, 0, sockets),
            Step(0),
            Step(CALL, immediate=MAP_LOOKUP_ELEM),
            Step(JUMP_EQUAL, 0, 0, "pass", 0),
            Step(MOVE, 7, 0),
            Step(MOVE, 1, 6),
            Step(MOVE, 2, 7),
            Step(MOVE_IMM, 3, 0, 0, 0),
            Step(CALL, immediate=SK_ASSIGN),
            Step(MOVE, 1, 7),
            Step(CALL, immediate=SK_RELEASE),
            "pass",
            Step(MOVE_IMM, 0, 0, 0, 1),
            Step(EXIT),
        ]
    )


def _expect(offset: int, wanted: int, otherwise: str) -> tuple[Step, Step]:
    """Return what compares a word of struct bpf_sk_lookup, and jumps if it is another."""
    return Step(LOAD_U32, 2, 6, offset), Step(JUMP_NOT_EQUAL, 2, 0, otherwise, wanted)


def _assembled(lines: Sequence[Step | str]) -> bytes:
    """Return the instructions of `lines`, in which a string is the label of what follows."""
    places: dict[str, int] = {}
    steps: list[Step] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(steps)
        else:
            steps.append(line)
    code = b""
    for index, step in enumerate(steps):
        offset = places[step.offset] - index - 1 if isinstance(step.offset, str) else step.offset
        code += struct.pack("=BBhi", step.code, step.source << 4 | step.target, offset, step.immediate)
    return code


def _bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, ATTRIBUTES)
    return check(libc.syscall(SYS_BPF[platform.machine()], command, buffer, ATTRIBUTES), f"bpf(2) command {command}")
