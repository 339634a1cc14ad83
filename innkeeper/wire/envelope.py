"""The three messages that wrap every call (Request, Response, Status), encoded and decoded by hand.

    Request  { 1 service:string  2 method:string  3 payload:bytes  4 timeout_nano:int64
               5 metadata:repeated KeyValue }
    Response { 1 status:Status  2 payload:bytes }
    Status   { 1 code:int32  2 message:string  3 details:repeated Any }
    KeyValue { 1 key:string  2 value:string }
    Any      { 1 type_url:string  2 value:bytes }

PID 1 answers its first Health.Check with this module alone. Importing protobuf's C core takes 4 MB
and, in an emulated guest, a second.

The decoder is slow Python code, so it limits the work that one message can cause. A frame of 4 MiB
has room for two million empty fields, which would keep PID 1 from every other client for seconds.
Groups, which proto3 cannot express, are refused for the same reason.
"""

from innkeeper.wire import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_MAX_FIELD = (1 << 29) - 1
MAX_FIELDS = 1024
"""The most fields of an envelope, including unknown ones. An envelope with more is refused.

A request has five fields, and one for each pair of metadata.
"""
MAX_PAIR_FIELDS = 16
"""The most fields of one pair of metadata."""


class DecodeError(ValueError):
    """Bytes that are not a valid message."""


class Request:
    """A call.

    `service` is the full name of the service, `method` the name of the method alone. A
    `timeout_nano` of 0 means no limit. `metadata` keeps its order and may repeat a key.
    """

    __slots__ = ("metadata", "method", "payload", "service", "timeout_nano")

    def __init__(
        self,
        service: str = "",
        method: str = "",
        payload: bytes = b"",
        timeout_nano: int = 0,
        metadata: "list[tuple[str, str]] | None" = None,
    ) -> None:
        self.service = service
        self.method = method
        self.payload = payload
        self.timeout_nano = timeout_nano
        self.metadata = metadata or []

    def encode(self) -> bytes:
        """Return the serialized message."""
        parts = [_field(1, self.service.encode()), _field(2, self.method.encode()), _field(3, self.payload)]
        if self.timeout_nano:
            parts.append(b"\x20" + _varint(self.timeout_nano & 0xFFFFFFFFFFFFFFFF))
        for key, value in self.metadata:
            pair = _field(1, key.encode()) + _field(2, value.encode())
            parts.append(b"\x2a" + _varint(len(pair)) + pair)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> "Request":
        """Parse a serialized message. Raises DecodeError."""
        request = cls()
        for number, wire_type, value in _fields(data):
            if number == 1 and wire_type == _BYTES:
                request.service = _text(value)
            elif number == 2 and wire_type == _BYTES:
                request.method = _text(value)
            elif number == 3 and wire_type == _BYTES:
                request.payload = _raw(value)
            elif number == 4 and wire_type == _VARINT:
                request.timeout_nano = _signed(value, 64)
            elif number == 5 and wire_type == _BYTES:
                request.metadata.append(_key_value(_raw(value)))
        return request


class Response:
    """The answer to a call.

    If `code` is OK, `payload` is the serialized message. Otherwise `message` says what failed.
    `details` are those of google.rpc.Status: type URL and serialized message of each (see
    `innkeeper.wire.error_info`).
    """

    __slots__ = ("code", "details", "message", "payload")

    def __init__(self, code: int = status.OK, message: str = "", payload: bytes = b"", details: "Sequence[tuple[str, bytes]]" = ()) -> None:
        self.code = code
        self.message = message
        self.payload = payload
        self.details = list(details)

    def encode(self) -> bytes:
        """Return the serialized message.

        A success has no status at all. Both kinds of client read that as code 0.
        """
        if self.code == status.OK and not self.message:
            return _field(2, self.payload)
        inner = self.encode_status()
        return b"\x0a" + _varint(len(inner)) + inner + _field(2, self.payload)

    def encode_status(self) -> bytes:
        """Return the google.rpc.Status alone, serialized."""
        out = b"\x08" + _varint(self.code & 0xFFFFFFFFFFFFFFFF) if self.code else b""
        out += _field(2, self.message.encode("utf-8", "replace"))
        for url, value in self.details:
            detail = _field(1, url.encode()) + _field(2, value)
            out += b"\x1a" + _varint(len(detail)) + detail
        return out

    @classmethod
    def decode(cls, data: bytes) -> "Response":
        """Parse a serialized message. Raises DecodeError."""
        response = cls()
        for number, wire_type, value in _fields(data):
            if number == 1 and wire_type == _BYTES:
                response._merge_status(_raw(value))
            elif number == 2 and wire_type == _BYTES:
                response.payload = _raw(value)
        return response

    def _merge_status(self, data: bytes) -> None:
        for number, wire_type, value in _fields(data):
            if number == 1 and wire_type == _VARINT:
                self.code = _signed(value, 32)
            elif number == 2 and wire_type == _BYTES:
                self.message = _text(value)
            elif number == 3 and wire_type == _BYTES:
                self.details.append(_any(_raw(value)))


def _field(number: int, value: bytes) -> bytes:
    """Encode a length-delimited field. An empty one is left out, as in proto3."""
    return bytes((number << 3 | _BYTES,)) + _varint(len(value)) + value if value else b""


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key_value(data: bytes) -> tuple[str, str]:
    key = value = ""
    for number, wire_type, content in _fields(data, MAX_PAIR_FIELDS):
        if number == 1 and wire_type == _BYTES:
            key = _text(content)
        elif number == 2 and wire_type == _BYTES:
            value = _text(content)
    return key, value


def encode_pairs(texts: "dict[int, str]", pairs: "dict[str, str]") -> bytes:
    """Serialize a message with string fields, whose field 3 is a map of strings.

    `texts` maps field numbers to strings.
    """
    out = [_field(number, text.encode("utf-8", "replace")) for number, text in texts.items()]
    for key, value in pairs.items():
        pair = _field(1, key.encode()) + _field(2, value.encode("utf-8", "replace"))
        out.append(b"\x1a" + _varint(len(pair)) + pair)
    return b"".join(out)


def read_pairs(data: bytes) -> "tuple[dict[int, str], dict[str, str]]":
    """Parse what `encode_pairs` serializes. Raises DecodeError."""
    texts: dict[int, str] = {}
    pairs: dict[str, str] = {}
    for number, wire_type, value in _fields(data):
        if wire_type == _BYTES and number == 3:
            key, text = _key_value(_raw(value))
            pairs[key] = text
        elif wire_type == _BYTES and number < 3:
            texts[number] = _text(value)
    return texts, pairs


def _any(data: bytes) -> tuple[str, bytes]:
    url, content = "", b""
    for number, wire_type, value in _fields(data, MAX_PAIR_FIELDS):
        if number == 1 and wire_type == _BYTES:
            url = _text(value)
        elif number == 2 and wire_type == _BYTES:
            content = _raw(value)
    return url, content


def _fields(data: bytes, most: int = MAX_FIELDS) -> "Iterator[tuple[int, int, int | bytes]]":
    """Yield (number, wire type, value) of each field, at most `most` fields.

    The value is an int for varints, bytes for length-delimited fields, and b"" for fixed-size
    fields, which no envelope uses. Raises DecodeError.
    """
    position, end, count = 0, len(data), 0
    while position < end:
        count += 1
        if count > most:
            raise DecodeError(f"more than {most} fields")
        tag, position = _read_varint(data, position, 5)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD:
            raise DecodeError("field number out of range")
        if wire_type == _VARINT:
            value, position = _read_varint(data, position, 10)
            yield number, wire_type, value
            continue
        if wire_type == _BYTES:
            length, position = _read_varint(data, position, 5)
        elif wire_type in _FIXED:
            length = _FIXED[wire_type]
        else:
            raise DecodeError(f"wire type {wire_type} out of place")
        if length > end - position:
            raise DecodeError("field runs over the end")
        yield number, wire_type, data[position : position + length] if wire_type == _BYTES else b""
        position += length


def _read_varint(data: bytes, position: int, longest: int) -> tuple[int, int]:
    value = shift = 0
    end = min(len(data), position + longest)
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise DecodeError("varint too long")
            return value, position
        shift += 7
    raise DecodeError("varint has no end")


def _signed(value: "int | bytes", bits: int) -> int:
    assert isinstance(value, int)
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _raw(value: "int | bytes") -> bytes:
    assert isinstance(value, bytes)
    return value


def _text(value: "int | bytes") -> str:
    try:
        return _raw(value).decode()
    except UnicodeDecodeError:
        raise DecodeError("text is not UTF-8") from None
