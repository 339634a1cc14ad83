"""The part of the start after the first answered Check.

It boots the guest, loads everything that serves containers, and serves until the sandbox ends.
"""

import gc
import os
import sys
from pathlib import Path

from agent import KATA_AGENT_VERSION, KATA_API_VERSION, config, log, loop, timeline
from agent.linux.reaper import reaper
from agent.loop.sockets import listen
from agent.service.server import serve
from innkeeper.wire.grpc import PORT as GRPC_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from agent.service.dispatcher import Dispatcher
else:
    import _signal as signal

SERVICE_MODULES = (
    "innkeeper.wire.pb.agent_pb2",
    "innkeeper.wire.pb.guest_pb2",
    "agent.container.container",
    "agent.storage.manager",
    "agent.sandbox",
    "agent.service.methods",
)
"""Modules to import one by one.

The loop runs in between, so that a Check that arrives meanwhile waits for one of them only.
"""
GRPC_VSOCK = f"vsock://-1:{GRPC_PORT}"
"""Default gRPC address of a guest.

An ordinary process has no gRPC port unless an address is set.
"""
GRPC_FOLDER = "/run/innkeeper"
"""Directory of the sockets between PID 1 and the gateway."""


IMAGE_POLICY = "/etc/innkeeper/policy.toml"
"""Path of the policy that an image may ship."""
DRAIN_SECONDS = 0.3
"""Seconds that clients have to read the last response and disconnect."""


async def as_pid1(dispatcher: "Dispatcher", address: str) -> None:
    """Boot the guest and serve until the sandbox ends, then power off.

    `address` is the one on which the agent listens already.
    """
    from agent import early_boot, lsm, ptp_clock
    from agent.linux.reboot import end_vm

    early_boot.leave_initramfs()
    early_boot.boot()
    timeline.mark("booted")
    lsm.load()
    timeline.mark("policy loaded")
    settings = config.read(file=config.argument(sys.argv[1:]))
    ptp_clock.start()
    listen_on_configured(settings, address, dispatcher)
    await _serve(dispatcher, settings, Path(early_boot.CGROUP_ROOT), settings.grpc_addr or GRPC_VSOCK)
    await loop.sleep(DRAIN_SECONDS)
    log.info("power off")
    end_vm()


def listen_on_configured(settings: config.Config, address: str, dispatcher: "Dispatcher") -> None:
    """Listen on the configured address too, if it is not `address`.

    The kernel command line can be read only after /proc is mounted, and the agent has begun to
    listen on `address` before that. It serves on both. If the second one fails, that is logged.
    """
    if settings.server_addr == address:
        return
    try:
        loop.spawn(serve(listen(settings.server_addr), dispatcher.answer), name="second listener")
    except OSError as error:
        log.error(f"{settings.server_addr}: {error}; the agent listens on {address} only")


async def as_process(dispatcher: "Dispatcher", settings: config.Config) -> None:
    """Serve as an ordinary process until the sandbox is destroyed.

    Without cgroups the agent runs, but cannot create containers.
    """
    from agent import standalone

    try:
        cgroup_root = standalone.cgroup_root()
    except OSError as error:
        log.warn(f"no containers: {error}")
        cgroup_root = Path(os.devnull)
    if path := os.environ.get("INNKEEPER_STEPS"):
        from agent.container.step_times import record_to

        record_to(path)
    await _serve(dispatcher, settings, cgroup_root, settings.grpc_addr or "none")
    await loop.sleep(DRAIN_SECONDS)


async def _serve(dispatcher: "Dispatcher", settings: config.Config, cgroup_root: Path, grpc_address: str) -> None:
    """Load the service and serve until the sandbox ends."""
    log.set_level(settings.log_level)
    loop.on_signal(signal.SIGCHLD, reaper.sweep)
    reaper.sweep()
    for name in SERVICE_MODULES:
        __import__(name)
        await loop.sleep(0)
    from agent.sandbox import Sandbox
    from agent.service.methods import Methods

    sandbox = Sandbox(settings, cgroup_root)
    try:
        sandbox.devices.start()
    except OSError as error:
        log.warn(f"no device events: {error}")
    if settings.log_vport or settings.debug_console or settings.passfd_listener_port or settings.port_forward_vport:
        from agent.vsock_services.vsock_ports import open_ports

        open_ports(settings, sandbox)
    if settings.dev_mode:
        _keep_cores()
    if os.path.exists(IMAGE_POLICY):
        sandbox.policies.read(IMAGE_POLICY)
    if settings.policy_file:
        sandbox.policies.read(settings.policy_file)
    dispatcher.methods = Methods(sandbox)
    _freeze_heap()
    timeline.mark("loaded")
    if grpc_address != "none":
        _listen_grpc(grpc_address, dispatcher)
    dispatcher.loaded.set()
    log.info("announce", agent_version=KATA_AGENT_VERSION, api_version=KATA_API_VERSION, config=vars(settings))
    await sandbox.ended.wait()


def _listen_grpc(address: str, dispatcher: "Dispatcher") -> None:
    """Listen for gRPC. An error is logged, because the agent works without it.

    A port that nobody uses costs one socket: the gateway is imported, and its process started, by
    the first connection.
    """
    try:
        port = listen(address)
    except OSError as error:
        log.error(f"no gRPC on {address}: {error}")
        return

    async def serve() -> None:
        await loop.readable(port)
        from agent.service.gateway import Gateway

        await Gateway(GRPC_FOLDER, dispatcher.answer).serve(port)

    loop.spawn(serve(), name="grpc listener")


def _keep_cores() -> None:
    """Let programs that crash leave a core dump, in their working directory (agent.devmode).

    The spec of a container may set another limit.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _freeze_heap() -> None:
    """Collect garbage once, return free memory to the kernel, and freeze what is left (gc.freeze).

    Everything is imported by now. The collector does not touch frozen objects any more, so the
    pages that hold them stay shared with forked children.
    """
    from agent.linux.libc import trim_heap

    gc.collect()
    trim_heap()
    gc.freeze()
    gc.set_threshold(20000, 20, 50)
    gc.enable()
