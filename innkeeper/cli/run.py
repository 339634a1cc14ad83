"""The command `run`: run a container in a VM of its own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from innkeeper.cli.flags import (
    ENVIRONMENT,
    PATH,
    PROCESS,
    STREAMS,
    Argument,
    Command,
    LazyModule,
    Refused,
    flat,
    repeated,
    single,
    switch,
    take,
    words,
)
from innkeeper.guest import Variant

if TYPE_CHECKING:
    from innkeeper.engine import resolve
    from innkeeper.image import option_values as values
else:
    resolve, values = LazyModule("innkeeper.engine.resolve"), LazyModule("innkeeper.image.option_values")


def _size(flag: str) -> Callable[[str], int | None]:
    return lambda text: values.parse_size(text, flag) if text else None


def _word(flag: str) -> Callable[[str], str]:
    return lambda text: values.parse_word(text, flag)


ADD_HOST = "A line of /etc/hosts; host-gateway is the host's address."
START = "Boot, start from a saved guest, or take one that runs; default: $INNKEEPER_VM_START, else the fastest."
SCRATCH = "Disk space for what the container writes."
PORT = "[[IP:]HOST:]PORT[/udp]"
FLAGS = (
    *STREAMS,
    switch("detached", "-d", "--detach", help="In the background; print the container's id."),
    switch("remove", "--rm", help="Forget the container when it ends."),
    single("name", "--name", help="A name for exec, logs, stop, ..."),
    *ENVIRONMENT,
    repeated("volumes", "-v", "--volume", parse=values.parse_volume, metavar="HOST:GUEST[:ro]", help="Share a folder or file."),
    repeated("ports", "-p", "--publish", parse=values.parse_ports, into=flat, metavar=PORT, help="Forward a port."),
    switch("publish_all", "-P", "--publish-all", help="Forward a free port to each one that the image exposes."),
    *PROCESS,
    repeated("group_add", "--group-add", metavar="GROUP", help="One more group, by name or number."),
    single("hostname", "-h", "--hostname", parse=values.parse_hostname, help="The container's host name."),
    repeated("add_hosts", "--add-host", parse=values.parse_add_host, metavar="NAME:IP", help=ADD_HOST),
    repeated("dns", "--dns", parse=values.parse_dns, metavar="IP", help="A name server in place of the host's."),
    repeated("dns_search", "--dns-search", parse=_word("--dns-search"), metavar="DOMAIN", help="A search domain; . is none."),
    repeated("dns_options", "--dns-option", parse=_word("--dns-option"), metavar="OPTION", help="An option of resolv.conf(5)."),
    single("memory", "-m", "--memory", parse=lambda text: values.parse_memory(text) if text else None, help="Limit, like 512m."),
    single("cpus", "--cpus", parse=lambda text: values.parse_cpus(text) if text else None, help="Limit, like 1.5."),
    single("pids_limit", "--pids-limit", kind=int, help="Limit of processes and threads."),
    switch("read_only", "--read-only", help="A root that cannot be written."),
    repeated("tmpfs", "--tmpfs", parse=values.parse_tmpfs, metavar="PATH[:OPTIONS]", help="A tmpfs at PATH."),
    single("shm_size", "--shm-size", parse=_size("--shm-size"), help="Size of /dev/shm."),
    repeated("cap_add", "--cap-add", metavar="CAP", help="Add a capability."),
    repeated("cap_drop", "--cap-drop", metavar="CAP", help="Drop a capability, or ALL."),
    repeated("security_opt", "--security-opt", metavar="OPT", help="seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, label=..., ..."),
    repeated("ulimits", "--ulimit", parse=values.parse_ulimit, metavar="NAME=SOFT[:HARD]", help="A resource limit."),
    repeated("sysctls", "--sysctl", parse=values.parse_sysctl, into=dict, metavar="NAME=VALUE", help="A kernel setting of the container."),
    single("entrypoint", "--entrypoint", help="In place of the image's."),
    switch("init", "--init", help="A small init as the container's first process."),
    single("stop_signal", "--stop-signal", help="In place of the image's."),
    single("network", "--network", default="user", parse=resolve.network, help="user, or none: loopback only."),
    single("scratch", "--scratch", default="8g", parse=lambda text: values.parse_size(text, "--scratch"), metavar="SIZE", help=SCRATCH),
    single("accel", "--accel", default="auto", parse=resolve.accelerator, help="auto, kvm or tcg."),
    single("vm_memory", "--vm-memory", parse=_size("--vm-memory"), help="Memory of the VM; default: --memory and more, or 2g."),
    single("timeout", "--timeout", kind=float, default=120, minimum=1, help="Seconds that the guest may take to answer."),
    single("guest", "--guest-variant", choices=get_args(Variant), default="release", help="As `build --variant`: selinux has SELinux."),
    single(
        "guest_file",
        "--guest",
        kind=PATH,
        metavar="GUEST.TOML|oci:REF",
        help="Describes the guest, as for `build -f`; or one in a registry.",
    ),
    single("kernel", "--kernel", parse=resolve.kernel, metavar="ours|debian|FILE", help="Default: ours if it is built, else debian."),
    single("start", "--start", parse=resolve.start, metavar="auto|cold|template|pool", help=START),
    switch("debug_guest", "--debug-guest", help="As --guest-variant debug: a guest with a shell (see `shell`)."),
)
"""Every flag of `run`, in the order of `--help`.

The fields are those of RunOptions and RunRequest.
"""
REFUSED = (
    Refused(
        "--privileged",
        "a container is granted single privileges only",
        "name what it needs: --cap-add CAP, --security-opt seccomp=FILE|unconfined, apparmor=unconfined or systempaths=unconfined",
    ),
    Refused("--device", "a container sees the devices of its VM, which has none of the host's", "share files of the host with -v"),
)
"""Flags of docker that are left out by design."""


def run(image: str, command: list[str] | None = None, **given: Any) -> int:
    """Run a command in a container of IMAGE, in a virtual machine of its own.

    Standard output carries the container's bytes and nothing else; the exit status is the
    container's.
    """
    from innkeeper.engine import attach, session
    from innkeeper.engine.resolve import RunRequest
    from innkeeper.image import RunOptions

    if not given.get("detached"):
        attach.check_terminal(given.get("interactive", False), given.get("tty", False))
    given["guest"] = resolve.guest_variant(given.get("guest", "release"), given.pop("debug_guest", False), given.get("guest_file"))
    security = given.pop("security_opt", [])
    options = RunOptions(args=command or [], mac=resolve.mandatory_access_control(given["guest"]), **take(RunOptions, given))
    values.parse_security_opts(security, options)
    request = RunRequest(reference=image, **take(RunRequest, given))
    assert not given, given
    resolved = resolve.resolve_run(request, options)
    if not request.detached:
        return session.run(resolved)
    from innkeeper.engine import monitor

    print(monitor.start(resolved))
    return 0


COMMAND = Command(
    name="run",
    run=run,
    arguments=(
        Argument(field="image", metavar="IMAGE", help="oci:, oci-archive:, docker-archive:, docker://, ..., or a name."),
        words("command", "[COMMAND [ARG...]]", required=False),
    ),
    flags=FLAGS,
    refused=REFUSED,
    examples=(
        "run --rm docker.io/library/debian:trixie uname -r",
        "run -it --rm oci:./image:latest sh",
        "cat data | run -i --rm IMAGE sha256sum",
        "run -d --name web -p 8080:80 -v ./site:/var/www/html:ro IMAGE",
    ),
    interspersed=False,
)
