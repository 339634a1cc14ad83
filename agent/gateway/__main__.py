"""`gateway AGENT_SOCKET GRPC_SOCKET READY_FD`: serve gRPC on one unix socket by calling the agent on the other."""

import sys

from agent.gateway import containment


def main(arguments: list[str]) -> int:
    """Give up what is not needed before anything is imported that parses what others send."""
    agent_socket, grpc_socket, ready = arguments
    containment.contain()

    from agent.gateway import server

    server.run(agent_socket, grpc_socket, int(ready))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
