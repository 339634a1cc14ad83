"""Specifications that nobody would write: a valid one, changed in a few places by hypothesis, as a document and as a message."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

TEXTS = (
    "", "/", ".", "..", "../..", "/..", "//", "/.", "~", "-", "/proc", "/proc/", "/proc/self", "/proc/self/fd/3", "/proc/self/exe",
    "/proc/1/root", "/proc/sys/kernel/core_pattern", "/proc/cpuinfo", "/dev", "/dev/null", "/dev/pts", "/sys", "/sys/fs/cgroup", "/tmp",
    "/etc/passwd", "/volume", "/payload", "/link", "/link/x", "/up/x", "/absolute/x", "/loop", "/loop/x", "link/x", "a\0b", "\0", "\n",
    "x" * 300, "/" + "x" * 300, "/x" * 2000, "x" * 70_000, "%s%n", "-1", "0x10", "1e3", "4294967296", "\u00fc", "\u202e", "\U0001f600",
    "CAP_SYS_ADMIN", "CAP_", "cap_chown", "ALL", "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", "SCMP_ACT_KILL_PROCESS", "SCMP_CMP_MASKED_EQ",
    "SCMP_ARCH_X86_64", "SECCOMP_FILTER_FLAG_LOG", "bind", "rbind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2",
    "overlay", "ext4", "none", "ro", "rro", "idmap", "remount", "tmpcopyup", "rshared", "unbindable", "size=1", "mode=99999", "uid=x",
    "lowerdir=/", "pid", "user", "mount", "time", "network", "mnt", "RLIMIT_NOFILE", "RLIMIT_AS", "SCHED_FIFO", "LINUX32", "a", "b", "c",
    "p", "rwm", "rw", "x=y", "=", "A=", "PATH=", "net.ipv4.ip_forward", "kernel.core_pattern", "net/../kernel/core_pattern", "memory.max",
    "cgroup.procs", "2MB", "0-3,7", "1-", "1.99.0", "2.0.0", "one two", "unconfined", "docker-default",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 5, 7, 10, 255, 256, 340, 341, 1000, 4095, 4096, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 2,
    (1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 31), -(1 << 63), 10**40,
)  # fmt: skip
MANY = 5000
FEW = 8
"""Of a long list only the first entries are changed."""

texts = st.sampled_from(TEXTS) | st.text(max_size=12)
numbers = st.sampled_from(NUMBERS) | st.integers(-(1 << 65), 1 << 65)
others: st.SearchStrategy[Any] = st.sampled_from(
    (None, True, False, 1.5, float("nan"), float("inf"), "\ud800", b"bytes", [], {}, [[]], [{}], {"": ""}, [None])
)
Place = tuple[Any, Any]
SHOWN = 4000


class Case:
    """What is to be tried, with a text of a length that can be read."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        text = repr(self.value)
        return text if len(text) < SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def places(value: Any) -> Iterator[Place]:
    """(container, key) of everything in a document."""
    entries = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, below in entries[:FEW]:
        yield value, key
        yield from places(below)


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@st.composite
def documents(draw: st.DrawFn, valid: Callable[[], dict[str, Any]]) -> Case:
    """A changed copy of a valid document."""
    document = copy.deepcopy(valid())
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(document))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        _change(draw, container, key, found)
    return Case(document)


def _change(draw: st.DrawFn, container: Any, key: Any, found: list[Place]) -> None:
    value = container[key]
    how = draw(st.sampled_from(("text", "number", "other", "gone", "again", "many", "elsewhere", "unknown", "deep")))
    if how == "gone":
        del container[key]
    elif how == "again" and isinstance(container, list):
        container.append(copy.deepcopy(value))
    elif how == "many" and isinstance(container, list) and len(container) < FEW:
        container.extend([copy.deepcopy(value)] * MANY)
    elif how == "elsewhere":
        other, there = draw(st.sampled_from(found))
        container[key] = copy.deepcopy(other[there]) if _has(other, there) else None
    elif how == "unknown" and isinstance(container, dict):
        container[draw(texts)] = copy.deepcopy(draw(texts | numbers | others))
    elif how == "deep":
        container[key] = _nested(draw(st.sampled_from((1, 10, 200))))
    else:
        container[key] = copy.deepcopy(draw({"text": texts, "number": numbers}.get(how, others)))


def _has(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)


# the same for messages

Slot = tuple[Any, FieldDescriptor]


def slots(message: Any) -> Iterator[Slot]:
    """(message, field) of every field of a message and of those in it."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        value = getattr(message, field.name)
        for below in value if hasattr(value, "add") else [value] if message.HasField(field.name) else ():
            yield from slots(below)


@st.composite
def messages(draw: st.DrawFn, valid: Callable[[], Any]) -> Case:
    """A changed copy of a valid message; now and then one whose bytes are changed, so that types are wrong where the wire permits."""
    message = copy.deepcopy(valid())
    for _ in range(draw(st.integers(1, 4))):
        owner, field = draw(st.sampled_from(list(slots(message))))
        _change_field(draw, owner, field)
    return Case(message)


def _change_field(draw: st.DrawFn, owner: Any, field: FieldDescriptor) -> None:
    value = getattr(owner, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value[_fitting(draw(texts))] = _fitting(draw(texts))
    elif hasattr(value, "extend"):
        _change_list(draw, value, field)
    elif field.message_type is not None:
        draw(st.sampled_from((owner.ClearField, lambda name: getattr(owner, name).SetInParent())))(field.name)
    else:
        setattr(owner, field.name, _scalar(draw, field))


def _change_list(draw: st.DrawFn, value: Any, field: FieldDescriptor) -> None:
    how = draw(st.sampled_from(("clear", "again", "many", "new")))
    if how == "clear":
        del value[:]
    elif how == "new" or not value:
        value.add() if field.message_type is not None else value.append(_scalar(draw, field))
    else:
        value.extend([copy.deepcopy(value[draw(st.integers(0, len(value) - 1))])] * (MANY if how == "many" else 1))


RANGES = {
    FieldDescriptor.CPPTYPE_INT32: 1 << 31,
    FieldDescriptor.CPPTYPE_INT64: 1 << 63,
    FieldDescriptor.CPPTYPE_UINT32: 1 << 32,
    FieldDescriptor.CPPTYPE_UINT64: 1 << 64,
}


def _scalar(draw: st.DrawFn, field: FieldDescriptor) -> object:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return draw(st.binary(max_size=40)) if field.type == FieldDescriptor.TYPE_BYTES else _fitting(draw(texts))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.booleans())
    if field.cpp_type in RANGES:
        end = RANGES[field.cpp_type]
        signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
        value = draw(numbers) % end
        return value - end if signed and draw(st.booleans()) and value else value
    return draw(st.sampled_from((0, 1)))


def _fitting(text: str) -> str:
    """What the wire can carry."""
    return text.encode(errors="ignore").decode()


@st.composite
def mangled(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes of a message with some of them changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        piece = draw(st.binary(max_size=4))
        changed[at : at + draw(st.integers(0, 4))] = piece
    return bytes(changed)
