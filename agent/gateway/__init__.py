"""The gRPC gateway: a program of its own, started by PID 1 when the first gRPC client calls (agent.service.gateway).

It holds nothing of the guest's state: each call is one ttRPC call to the agent, or several. So it may end at any time and be started
again. PID 1 never imports anything of this package.
"""
