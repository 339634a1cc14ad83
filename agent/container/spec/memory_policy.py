"""`linux.memoryPolicy` of the specification: the NUMA nodes of the program's memory."""

from dataclasses import dataclass

from agent.container.spec.reader import SpecReader, choice
from agent.container.spec.scheduling import cpu_list
from agent.errors import Refused
from agent.linux import numa

MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
NEED_NODES = ("MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE")


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """Arguments of set_mempolicy(2). `mode` includes the flags."""

    mode: int
    nodes: tuple[int, ...]


def parse_memory_policy(reader: SpecReader | None) -> MemoryPolicy | None:
    """Return `linux.memoryPolicy` as an object.

    Raises Refused, also for a kernel without NUMA.
    """
    if reader is None:
        return None
    name = reader.string("mode")
    mode = choice(name, reader.name("mode"), MODES)
    nodes = cpu_list(reader.string("nodes"), reader.name("nodes"))
    if nodes and name in WITHOUT_NODES:
        raise Refused(reader.name("nodes"), f"{name} takes none")
    if not nodes and name in NEED_NODES:
        raise Refused(reader.name("nodes"), f"missing, {name} needs them")
    for index, flag in enumerate(reader.strings("flags")):
        mode |= choice(flag, reader.name(f"flags[{index}]"), FLAGS)
    reader.finish()
    if not numa.knows_mode(mode):
        raise Refused(reader.path, f"this kernel does not know {name} with these flags, or no memory policy at all (CONFIG_NUMA)")
    return MemoryPolicy(mode, nodes)
