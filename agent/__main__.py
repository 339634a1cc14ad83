"""The agent: PID 1 of the guest, or an ordinary process for tests.

PID 1 listens before it does anything else, and answers Health.Check with the few modules that it
has by then. The rest is loaded when the first client has its answer. Outside of a VM the address
comes from KATA_AGENT_SERVER_ADDR.
"""

from agent import timeline

timeline.mark("pid1")

import gc  # noqa: E402 - the first stage is marked before anything is imported
import os  # noqa: E402
import sys  # noqa: E402

from agent import log, loop  # noqa: E402
from agent.loop.sockets import VIRTIO_SERIAL, listen  # noqa: E402
from agent.service.dispatcher import Dispatcher  # noqa: E402
from agent.service.server import serve  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # the public module imports enum

VSOCK = "vsock://-1:1024"
FIRST_CHECK_WAIT = 1.0
"""Seconds that loading waits for the first client.

In an emulated guest, each import takes some tenths of a second.
"""


async def guest() -> None:
    """Run as PID 1: listen, answer the first Check, then boot and load the rest.

    The wait for the first Check is limited, so a guest that no client calls boots as well.
    """
    dispatcher = Dispatcher()
    # The kernel passes unknown words NAME=value of its command line to PID 1 as environment.
    address = os.environ.get("KATA_AGENT_SERVER_ADDR", VSOCK)
    loop.spawn(serve(listen(address), dispatcher.answer), name="listener")
    if VIRTIO_SERIAL:
        from agent.virtio_serial import serve_device

        loop.spawn(serve_device(), name="virtio-serial")
    timeline.mark_listening()
    if (port := os.environ.get("INNKEEPER_READY", "")).isdigit():
        from agent.ready_notify import notify_ready

        loop.spawn(notify_ready(int(port)), name="ready")
    try:
        with loop.timeout(FIRST_CHECK_WAIT):
            await dispatcher.checked.wait()
        await loop.sleep(0)
        timeline.mark("first check answered")
    except TimeoutError:
        pass
    from agent import bootstrap

    await bootstrap.as_pid1(dispatcher, address)


def _ordinary_process() -> int:
    """Run outside of a VM: without the mounts of a guest and without power-off.

    A root process isolates itself after the socket is bound, so that the socket is in the
    namespaces of its clients. Returns the exit status.
    """
    if root := os.geteuid() == 0:
        from agent import standalone

        standalone.seal_program()
    from agent import KATA_AGENT_VERSION, KATA_API_VERSION, bootstrap, config

    if config.version_asked(sys.argv[1:]):
        print(f"innkeeper agent, version {KATA_AGENT_VERSION} and API version {KATA_API_VERSION} of Kata's agent")
        return 0
    settings = config.read(os.devnull, config.argument(sys.argv[1:]))
    listener = listen(settings.server_addr)
    if root:
        standalone.isolate()
    dispatcher = Dispatcher()

    async def process() -> None:
        loop.spawn(serve(listener, dispatcher.answer), name="listener")
        timeline.mark_listening()
        await bootstrap.as_process(dispatcher, settings)

    loop.run(process())
    return 0


def _panic() -> None:
    """Log the error and end the VM, because PID 1 must not return.

    The kernel panics when PID 1 exits, whatever the reason. Here the console shows the reason.
    """
    log.error("panic: the agent ends the VM")
    error = sys.exc_info()
    if error[0] is not None:
        sys.excepthook(*error)
    from agent.linux.reboot import end_vm

    end_vm()


def main() -> int:
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and Ctrl-Alt-Del on the console
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if os.getpid() != 1:
        return _ordinary_process()
    try:
        loop.run(guest())
    except BaseException:  # noqa: BLE001 - the edge of the process, and of the VM
        _panic()
    return 1


if __name__ == "__main__":
    sys.exit(main())
