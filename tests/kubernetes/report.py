"""What the run prints at its end."""

LINES: list[str] = []
