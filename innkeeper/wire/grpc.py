"""Constants of the guest's gRPC port that host and guest share.

The gateway forwards a gRPC message to PID 1 inside a ttRPC frame, together with the names of
service and method and the call's metadata. Between these two processes, a frame may therefore be a
little longer than gRPC's own limit for messages.
"""

PORT = 50051
"""The gRPC port on the guest's vsock."""

MAX_MESSAGE = 4 << 20
"""The most bytes of one message in either direction, the default limit of gRPC's libraries."""

MAX_METADATA = 16 << 10
"""The most bytes of one call's metadata."""

MAX_FRAME = MAX_MESSAGE + 4 * MAX_METADATA
"""The longest payload of a frame between PID 1 and its gateway, in bytes."""
