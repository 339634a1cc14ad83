"""`gateway AGENT_SOCKET GRPC_SOCKET READY_FD`: the program that serves gRPC.

It listens on GRPC_SOCKET, calls the agent at AGENT_SOCKET, and writes a byte to READY_FD when a
client can connect. All sockets are unix sockets.
"""

import sys

from agent.gateway import containment


def main(arguments: list[str]) -> int:
    """Give up privileges, then serve until killed.

    The order matters: the libraries that parse the input of others are imported afterwards.
    """
    agent_socket, grpc_socket, ready = arguments
    containment.contain()

    from agent.gateway import server

    server.run(agent_socket, grpc_socket, int(ready))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
