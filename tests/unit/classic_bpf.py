"""An interpreter of classic BPF as seccomp permits it: what a compiled filter answers, without a kernel."""

import struct
from collections.abc import Callable

JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda accumulator, value: accumulator == value,
    0x25: lambda accumulator, value: accumulator > value,
    0x35: lambda accumulator, value: accumulator >= value,
    0x45: lambda accumulator, value: bool(accumulator & value),
}


class Program:
    """A filter, its instructions unpacked (struct sock_filter, linux/filter.h)."""

    def __init__(self, code: bytes) -> None:
        self._instructions = list(struct.iter_unpack("<HBBI", code))

    def answer(self, number: int, *args: int, arch: int) -> int:
        """Return what the filter answers for a call: SECCOMP_RET_* with its data (struct seccomp_data, linux/seccomp.h)."""
        data = struct.unpack("<16I", struct.pack("<IIQ6Q", number, arch, 0, *args, *[0] * (6 - len(args))))
        accumulator = place = 0
        while True:
            code, when_true, when_false, value = self._instructions[place]
            place += 1
            if code == 0x20:  # ld [k]
                accumulator = data[value // 4]
            elif code == 0x06:  # ret k
                return int(value)
            elif code == 0x05:  # ja
                place += value
            elif code == 0x54:  # and k
                accumulator &= value
            else:
                place += when_true if JUMPS[code](accumulator, value) else when_false
