"""bpf(2): load and attach device programs of cgroups (BPF_PROG_TYPE_CGROUP_DEVICE)."""

import ctypes
import struct

from agent.linux.libc import call, s32, u32

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4

BPF_DEVCG_ACC_MKNOD = 1
BPF_DEVCG_ACC_READ = 2
BPF_DEVCG_ACC_WRITE = 4
BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2


def instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """Return one encoded `struct bpf_insn`."""
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return call("bpf", s32(command), buffer, u32(len(attr)))


def prog_load(program_type: int, instructions: bytes, name: bytes) -> int:
    """Load a program and return its descriptor.

    The kernel always makes it close-on-exec. Raises OSError with the verifier's last line.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"Apache-2.0")
    count = len(instructions) // 8
    attr = struct.pack("<IIQQ24x16s", program_type, count, ctypes.addressof(code), ctypes.addressof(license_), name)
    return _bpf(BPF_PROG_LOAD, attr)


def prog_attach(target_fd: int, program_fd: int, attach_type: int, flags: int, replace_fd: int = 0) -> None:
    """Attach a program to a cgroup.

    With BPF_F_REPLACE it takes the place of the program `replace_fd` in one step.
    """
    _bpf(BPF_PROG_ATTACH, struct.pack("<IIIII", target_fd, program_fd, attach_type, flags, replace_fd))


def attached_program(target_fd: int, attach_type: int) -> int:
    """Return a descriptor of the program attached to a cgroup, or -1 if there is none.

    Programs of parent cgroups do not count. Raises OSError, also for more than one program.
    """
    ids = (ctypes.c_uint32 * 1)()
    attr = ctypes.create_string_buffer(struct.pack("<IIIIQI4x", target_fd, attach_type, 0, 0, ctypes.addressof(ids), 1), 32)
    call("bpf", s32(BPF_PROG_QUERY), attr, u32(32))
    if not struct.unpack_from("<I", attr.raw, 24)[0]:
        return -1
    return _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("<III", ids[0], 0, 0))
