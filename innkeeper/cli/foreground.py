"""`run` without -d: this process owns the VM and connects its standard streams to the container."""

from innkeeper.engine import attach, session
from innkeeper.engine.resolve import ResolvedRun


def run(resolved: ResolvedRun) -> int:
    """Run the container to its end. Return its exit status."""
    with session.opened(resolved) as opened:
        opened.start()
        status = attach.attach_streams(opened.process, interactive=resolved.options.interactive, tty=resolved.options.tty)
        opened.finish(status)
        return status
