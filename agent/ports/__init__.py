"""Ports beside the one for calls: the log, a console, streams of processes. Each is opened where the settings name a number for it."""
