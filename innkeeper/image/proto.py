"""Convert the OCI document to the protobuf message for the agent.

The message is Kata's and has fewer fields than the specification. A field that it lacks is refused
by its path, and nothing is silently dropped. In the message, zero and absent are the same. So a
value of zero is sent only where zero means absent.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from innkeeper.errors import InnkeeperError
from innkeeper.wire.pb import oci_pb2

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_OTHER_NAMES = {"ociversion": "version"}
# Zero has a meaning of its own in these fields, which the message cannot express.
_ZERO_MATTERS = frozenset(
    {"linux.resources.memory.swappiness", "linux.resources.pids.limit", "linux.resources.memory.limit", "linux.resources.memory.swap"}
)

_EMPTY_MATTERS = frozenset({"linux.seccomp.flags"})


def to_proto(document: Mapping[str, object]) -> oci_pb2.Spec:
    """Convert an OCI runtime specification document.

    Raises InnkeeperError, which names the field that cannot be sent.
    """
    spec = oci_pb2.Spec()
    _fill(spec, document, "")
    return spec


def process_to_proto(process: Mapping[str, object]) -> oci_pb2.Process:
    """Convert only a `process` object, as exec sends it."""
    message = oci_pb2.Process()
    _fill(message, process, "process")
    return message


def resources_to_proto(resources: Mapping[str, object]) -> oci_pb2.LinuxResources:
    """Convert only a `linux.resources` object, as an update of limits sends it."""
    message = oci_pb2.LinuxResources()
    _fill(message, resources, "linux.resources")
    return message


def _fill(message: Message, document: Mapping[str, object], path: str) -> None:
    """Set the fields of `message` from `document`. `path` is the document's path, for errors."""
    fields = {field.name.lower(): field for field in message.DESCRIPTOR.fields}
    for key, value in document.items():
        where = f"{path}.{key}" if path else key
        if value is None:
            continue
        field = fields.get(_OTHER_NAMES.get(key.lower(), key.lower()))
        if field is None:
            raise InnkeeperError(f"{where}: cannot be sent to the guest (its protocol has no such field)")
        if value == 0 and where in _ZERO_MATTERS:
            raise InnkeeperError(f"{where}: 0 cannot be sent to the guest (its protocol takes it for absent)")
        if value == [] and where in _EMPTY_MATTERS:
            raise InnkeeperError(f"{where}: an empty list cannot be sent to the guest (its protocol takes it for absent)")
        _set(message, field, value, where)


def _set(message: Message, field: Any, value: object, where: str) -> None:
    """Set one field: a map, a list, a message or a scalar."""
    target: Any = getattr(message, field.name)
    if hasattr(target, "GetEntryClass"):  # a map; asking its descriptor would import descriptor_pb2, 20 ms
        for key, entry in _object(value, where).items():
            target[key] = _scalar(field.message_type.fields_by_name["value"], entry, f"{where}.{key}")
    elif hasattr(target, "append") or hasattr(target, "add"):
        if not isinstance(value, (list, tuple)):
            raise InnkeeperError(f"{where}: not a list")
        for index, entry in enumerate(value):
            if field.message_type is not None:
                _fill(target.add(), _object(entry, f"{where}[{index}]"), f"{where}[{index}]")
            else:
                target.append(_scalar(field, entry, f"{where}[{index}]"))
    elif field.message_type is not None:
        target.SetInParent()
        _fill(target, _object(value, where), where)
    else:
        setattr(message, field.name, _scalar(field, value, where))


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InnkeeperError(f"{where}: not an object")
    return value


def _scalar(field: Any, value: object, where: str) -> object:
    """Return `value` if it has the type and the range of `field`.

    Protobuf would convert or reject it with an error that does not name the path.
    """
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if not isinstance(value, str):
            raise InnkeeperError(f"{where}: not a string")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InnkeeperError(f"{where}: {value!r} is not UTF-8, which the guest's protocol needs") from error
        return value
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise InnkeeperError(f"{where}: not true or false")
        return value
    low, high = _INTEGERS[field.cpp_type]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InnkeeperError(f"{where}: {value!r} is not a number from {low} to {high}")
    return value
