"""Signals as plain integers.

The original makes enumerations of them, and wraps each function to return these.
"""

from _signal import *  # noqa: F403

Signals = Handlers = Sigmasks = int
