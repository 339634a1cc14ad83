"""The protocol that host and guest share: frames, connection, envelope, status codes, messages.

Nothing in this package does I/O.
"""
