"""Load message classes straight into protobuf's C core (upb).

The generated modules in `innkeeper/wire/pb` call this. protoc's own Python output imports
protobuf's descriptor, symbol database and reflection layers. They cost 4 MB and 30-50 ms (30 times
that under emulation), and PID 1 does not need them. The C core alone does the same work.

The descriptor pool is our own, not protobuf's default one, so that both can exist in one process,
as they do in tests.
"""

from _thread import RLock
from collections.abc import Mapping
from typing import Any

from google._upb import _message
from google.protobuf.message import Message

_POOL = _message.DescriptorPool()
_CLASSES: dict[str, Any] = {}
_LOCK = RLock()
"""Held while a class is made: upb lets other threads run meanwhile, which would make another."""


def load(namespace: dict[str, Any], serialized: bytes) -> Any:
    """Add a serialized FileDescriptorProto to the pool. Its dependencies must be added first.

    Returns the `__getattr__` of a module, which puts into `namespace` what is asked for: a
    top-level message class, an enum value as an integer, or `SERVICES` as {service: {method:
    (request class, response class)}}. Making a class takes longer than reading its descriptor, and
    PID 1 uses few of them, so none is made before it is used. Raises TypeError if a dependency is
    missing or the bytes are not a descriptor.
    """
    file = _POOL.AddSerializedFile(serialized)

    def find(name: str) -> Any:
        if (descriptor := file.message_types_by_name.get(name)) is not None:
            value = _class(descriptor)
        elif name == "SERVICES":
            value = {service.full_name: _methods(service) for service in file.services_by_name.values()}
        else:
            value = _enum_value(file, name)
        if value is None:
            raise AttributeError(f"{file.name} has no {name!r}")
        namespace[name] = value
        return value

    return find


def request_class(service: str, method: str) -> Any:
    """Return the class of the requests of a method. Raises KeyError if no file has it."""
    return _class(_POOL.FindServiceByName(service).methods_by_name[method].input_type)


def pool() -> Any:
    """Return the google.protobuf.descriptor_pool.DescriptorPool of all loaded descriptors."""
    return _POOL


def _class(descriptor: Any) -> Any:
    """Return the one class of a descriptor, whichever thread asks for it first."""
    with _LOCK:
        known = _CLASSES.get(descriptor.full_name)
        if known is None:
            known = _message.MessageMeta(descriptor.name, (Message,), {"DESCRIPTOR": descriptor, "__module__": __name__})
            _CLASSES[descriptor.full_name] = known
        return known


def _enum_value(file: Any, name: str) -> int | None:
    for enum in file.enum_types_by_name.values():
        if (value := enum.values_by_name.get(name)) is not None:
            number: int = value.number
            return number
    return None


def _methods(service: Any) -> Mapping[str, tuple[Any, Any]]:
    return {method.name: (_class(method.input_type), _class(method.output_type)) for method in service.methods}
