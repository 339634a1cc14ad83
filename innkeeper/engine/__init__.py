"""The library behind the command line: run a container in a VM.

Requests, sessions, exec, streams and records. It prints nothing: progress goes through
`innkeeper.progress`, and results are returned.
"""
