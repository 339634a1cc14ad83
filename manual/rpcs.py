"""The page of RPCs, generated from the .proto files."""

from pathlib import Path

from manual import proto
from manual.pages import HEAD, escape, table

FILES = ("guest.proto", "agent.proto", "health.proto", "types.proto", "oci.proto", "csi.proto")
INTRO = """# RPCs

What the agent serves, read from the comments of the .proto files. All services are on vsock port 1024 by ttRPC
([the wire](../wire.md)), and on port 50051 by gRPC ([gRPC](../grpc.md)); methods with `stream` are on the gRPC port only.
Which of Kata's calls are served, refused, or differ is in [Kata's contract](../kata-contract.md).
"""


def page(folder: Path) -> str:
    """Return the text of the page for the .proto files in `folder`."""
    files = [proto.read(folder / name) for name in FILES]
    parts = [HEAD, INTRO]
    for file in files:
        for service in file.services:
            rows = [(f"`{m.name}`", f"`{m.request}`", f"`{m.response}`", escape(m.comment)) for m in service.methods]
            parts += [f"## {service.name}\n", table(("RPC", "request", "response", "does"), rows)]
    for file in files:
        if file.messages:
            text = "\n\n".join(message for _, message in file.messages)
            parts += [f"## Messages of {file.name}\n", f"{file.comment}\n", f"```proto\n{text}\n```\n"]
    return "\n".join(parts)
