"""What both sides know about the guest's gRPC port: its number, and how long a message may be.

In the guest a gRPC message travels on inside a ttRPC frame, with the names of service and method and the call's metadata
around it. Between these two processes a frame may therefore be a little longer than gRPC's own limit for messages.
"""

PORT = 50051
"""Of the guest's vsock."""

MAX_MESSAGE = 4 << 20
"""Bytes of one message, in either direction: what gRPC's implementations accept unless told otherwise."""

MAX_METADATA = 16 << 10
"""Bytes of one call's metadata."""

MAX_FRAME = MAX_MESSAGE + 4 * MAX_METADATA
"""Payload of a frame between PID 1 and its gateway."""
