"""The envelope's messages as protobuf itself understands them, made from a table of their own: the oracle of the hand-written codec."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_STRING, _BYTES, _INT32, _INT64, _MESSAGE = 9, 12, 5, 3, 11
_SINGLE, _REPEATED = 1, 3

# message -> (number, name, type, label, message type)
_TABLE: dict[str, tuple[tuple[int, str, int, int, str], ...]] = {
    "KeyValue": ((1, "key", _STRING, _SINGLE, ""), (2, "value", _STRING, _SINGLE, "")),
    "Request": (
        (1, "service", _STRING, _SINGLE, ""),
        (2, "method", _STRING, _SINGLE, ""),
        (3, "payload", _BYTES, _SINGLE, ""),
        (4, "timeout_nano", _INT64, _SINGLE, ""),
        (5, "metadata", _MESSAGE, _REPEATED, "KeyValue"),
    ),
    "Any": ((1, "type_url", _STRING, _SINGLE, ""), (2, "value", _BYTES, _SINGLE, "")),
    "Status": ((1, "code", _INT32, _SINGLE, ""), (2, "message", _STRING, _SINGLE, ""), (3, "details", _MESSAGE, _REPEATED, "Any")),
    "Response": ((1, "status", _MESSAGE, _SINGLE, "Status"), (2, "payload", _BYTES, _SINGLE, "")),
}
_PACKAGE = "oracle"


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="oracle.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _TABLE.items():
        message = file.message_type.add(name=name)
        for number, field, kind, label, of in fields:
            added = message.field.add(number=number, name=field)
            added.type, added.label = kind, label  # type: ignore[assignment]
            if of:
                added.type_name = f".{_PACKAGE}.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _TABLE}


CLASSES = _classes()
OracleRequest: Any = CLASSES["Request"]
OracleResponse: Any = CLASSES["Response"]
