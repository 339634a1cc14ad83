"""Load message classes straight into protobuf's C core (upb).

The generated modules in `innkeeper/wire/pb` call this. protoc's own Python output imports
protobuf's descriptor, symbol database and reflection layers. They cost 4 MB and 30-50 ms (30 times
that under emulation), and PID 1 does not need them. The C core alone does the same work.

The descriptor pool is our own, not protobuf's default one, so that both can exist in one process,
as they do in tests.
"""

from collections.abc import Mapping
from typing import Any

from google._upb import _message
from google.protobuf.message import Message

_POOL = _message.DescriptorPool()
_CLASSES: dict[str, Any] = {}


def load(serialized: bytes) -> dict[str, Any]:
    """Add a serialized FileDescriptorProto to the pool. Its dependencies must be added first.

    Returns a dictionary by name: the top-level message classes, the enum values as integers, and
    `SERVICES` as {service: {method: (request class, response class)}}. Raises TypeError if a
    dependency is missing or the bytes are not a descriptor.
    """
    file = _POOL.AddSerializedFile(serialized)
    names: dict[str, Any] = {name: _class(descriptor) for name, descriptor in file.message_types_by_name.items()}
    for enum in file.enum_types_by_name.values():
        names.update({value.name: value.number for value in enum.values})
    names["SERVICES"] = {service.full_name: _methods(service) for service in file.services_by_name.values()}
    return names


def pool() -> Any:
    """Return the google.protobuf.descriptor_pool.DescriptorPool of all loaded descriptors."""
    return _POOL


def _class(descriptor: Any) -> Any:
    known = _CLASSES.get(descriptor.full_name)
    if known is None:
        known = _message.MessageMeta(descriptor.name, (Message,), {"DESCRIPTOR": descriptor, "__module__": __name__})
        _CLASSES[descriptor.full_name] = known
    return known


def _methods(service: Any) -> Mapping[str, tuple[Any, Any]]:
    return {method.name: (_class(method.input_type), _class(method.output_type)) for method in service.methods}
