"""`run` without -d: this process owns the VM and connects its standard streams to the container."""

from innkeeper.engine import attach, session
from innkeeper.engine.resolve import Plan


def run(plan: Plan) -> int:
    """Run the container to its end. Return its exit status."""
    with session.opened(plan) as opened:
        opened.start()
        status = attach.attend(opened.process, interactive=plan.options.interactive, tty=plan.options.tty)
        opened.finish(status)
        return status
