"""In place of Cloud Hypervisor, which does nothing without KVM: keeps what the shim asks of it, and makes no machine.

cloud_hypervisor.py FILE --api-socket PATH ...     the body of vm.create goes into FILE; vmm.shutdown ends it
"""

import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

FILE = Path(sys.argv[1])


class Call(BaseHTTPRequestHandler):
    """One request of the shim's."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, b'{"version": "v48.0"}')

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/vm.create"):
            FILE.write_bytes(body)
        self.answer(500, b"")
        if self.path.endswith("/vmm.shutdown"):
            os._exit(0)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(socketserver.UnixStreamServer):
    """The base class of handlers wants an address of two parts."""

    def get_request(self) -> Any:
        return super().get_request()[0], ("shim", 0)


if __name__ == "__main__":
    Server(sys.argv[sys.argv.index("--api-socket") + 1], Call).serve_forever()
