"""Messages of google/protobuf/empty.proto; generated, do not edit."""

from innkeeper.wire.messages import load

__getattr__ = load(
    globals(),
    b'\n\x1bgoogle/protobuf/empty.proto\x12\x0fgoogle.protobuf"\x07'
    b'\n\x05EmptyB}\n\x13com.google.protobufB\nEmptyProtoP\x01Z.go'
    b'ogle.golang.org/protobuf/types/known/emptypb\xf8\x01\x01\xa2'
    b'\x02\x03GPB\xaa\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3'
)
