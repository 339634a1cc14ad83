"""Messages of health.proto; generated, do not edit."""

from innkeeper.wire.messages import load

__getattr__ = load(
    globals(),
    b'\n\x0chealth.proto\x12\x04grpc"(\n\x0cCheckRequest\x12\x18\n\x07service\x18'
    b'\x01 \x01(\tR\x07service"\x92\x01\n\x13HealthCheckResponse\x12?\n\x06status'
    b"\x18\x01 \x01(\x0e2'.grpc.HealthCheckResponse.ServingStatusR"
    b'\x06status":\n\rServingStatus\x12\x0b\n\x07UNKNOWN\x10\x00\x12\x0b\n\x07SERVING'
    b'\x10\x01\x12\x0f\n\x0bNOT_SERVING\x10\x02"^\n\x14VersionCheckResponse\x12!\n\x0cg'
    b'rpc_version\x18\x01 \x01(\tR\x0bgrpcVersion\x12#\n\ragent_version\x18'
    b'\x02 \x01(\tR\x0cagentVersion2{\n\x06Health\x126\n\x05Check\x12\x12.grpc.Ch'
    b'eckRequest\x1a\x19.grpc.HealthCheckResponse\x129\n\x07Version'
    b'\x12\x12.grpc.CheckRequest\x1a\x1a.grpc.VersionCheckResponse'
    b'b\x06proto3'
)
