"""Messages of google/protobuf/any.proto; generated, do not edit."""

from innkeeper.wire.messages import load

globals().update(
    load(
        b'\n\x19google/protobuf/any.proto\x12\x0fgoogle.protobuf"6\n\x03'
        b'Any\x12\x19\n\x08type_url\x18\x01 \x01(\tR\x07typeUrl\x12\x14\n\x05value\x18\x02 \x01(\x0cR\x05v'
        b'alueBv\n\x13com.google.protobufB\x08AnyProtoP\x01Z,google.'
        b'golang.org/protobuf/types/known/anypb\xa2\x02\x03GPB\xaa\x02\x1eGo'
        b'ogle.Protobuf.WellKnownTypesb\x06proto3'
    )
)
