"""The library behind the command line: run a container in a VM.

Requests, sessions, exec, streams and records. It prints nothing, except the id of a detached
container.
"""
