"""Messages of ttrpc.proto; generated, do not edit."""

from innkeeper.wire.messages import load
from innkeeper.wire.pb import any_pb2

globals().update(
    load(
        b'\n\x0bttrpc.proto\x12\x05ttrpc\x1a\x19google/protobuf/any.proto"'
        b'\xa5\x01\n\x07Request\x12\x18\n\x07service\x18\x01 \x01(\tR\x07service\x12\x16\n\x06method\x18'
        b'\x02 \x01(\tR\x06method\x12\x18\n\x07payload\x18\x03 \x01(\x0cR\x07payload\x12!\n\x0ctimeo'
        b'ut_nano\x18\x04 \x01(\x03R\x0btimeoutNano\x12+\n\x08metadata\x18\x05 \x03(\x0b2\x0f.t'
        b'trpc.KeyValueR\x08metadata"K\n\x08Response\x12%\n\x06status\x18\x01 '
        b'\x01(\x0b2\r.ttrpc.StatusR\x06status\x12\x18\n\x07payload\x18\x02 \x01(\x0cR\x07pay'
        b'load"2\n\x08KeyValue\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01('
        b'\tR\x05value"f\n\x06Status\x12\x12\n\x04code\x18\x01 \x01(\x05R\x04code\x12\x18\n\x07messag'
        b'e\x18\x02 \x01(\tR\x07message\x12.\n\x07details\x18\x03 \x03(\x0b2\x14.google.proto'
        b'buf.AnyR\x07detailsb\x06proto3'
    )
)
