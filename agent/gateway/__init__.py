"""The gRPC gateway: a program that PID 1 starts for the first gRPC client.

It holds no state of the guest: each gRPC call is one ttRPC call to the agent, or several. So the
gateway may end at any time and be started again. PID 1 never imports anything from this package,
and `agent.service.gateway` is its side of the connection.
"""
