"""Ports beside the one for calls: log, debug console, streams of processes, forwarded connections.

A port is opened if the settings name a number for it.
"""
