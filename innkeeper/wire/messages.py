"""Loads message classes straight into protobuf's C core (upb), for the generated modules in `innkeeper/wire/pb`.

protoc's own Python output imports protobuf's descriptor, symbol database and reflection layers: 4 MB and 30-50 ms (30 times that
under emulation) that PID 1 has no use for. The core alone does the same work, so the generated modules call this instead.
The pool is ours, not protobuf's default one, so that both can live in one process (tests do that).
"""

from collections.abc import Mapping
from typing import Any

from google._upb import _message
from google.protobuf.message import Message

_POOL = _message.DescriptorPool()
_CLASSES: dict[str, Any] = {}


def load(serialized: bytes) -> dict[str, Any]:
    """Add one serialized FileDescriptorProto to the pool; its dependencies come first.

    Returns its top-level message classes, enum wrappers' values and services' method tables by name:
    classes as they are, enum values as integers, `SERVICES` as {service: {method: (request class, response class)}}.
    Raises TypeError when a dependency is missing or the bytes are no descriptor.
    """
    file = _POOL.AddSerializedFile(serialized)
    names: dict[str, Any] = {name: _class(descriptor) for name, descriptor in file.message_types_by_name.items()}
    for enum in file.enum_types_by_name.values():
        names.update({value.name: value.number for value in enum.values})
    names["SERVICES"] = {service.full_name: _methods(service) for service in file.services_by_name.values()}
    return names


def pool() -> Any:
    """The descriptors of everything that has been loaded (a google.protobuf.descriptor_pool.DescriptorPool)."""
    return _POOL


def _class(descriptor: Any) -> Any:
    known = _CLASSES.get(descriptor.full_name)
    if known is None:
        known = _message.MessageMeta(descriptor.name, (Message,), {"DESCRIPTOR": descriptor, "__module__": __name__})
        _CLASSES[descriptor.full_name] = known
    return known


def _methods(service: Any) -> Mapping[str, tuple[Any, Any]]:
    return {method.name: (_class(method.input_type), _class(method.output_type)) for method in service.methods}
