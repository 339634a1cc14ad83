"""The command `run`: run a container in a VM of its own."""

from pathlib import Path
from typing import Annotated

import typer

from innkeeper.guest import Variant

Words = Annotated[list[str] | None, typer.Argument(metavar="[COMMAND [ARG...]]", show_default=False)]

EXAMPLES = """Examples:\n
  run --rm docker.io/library/debian:trixie uname -r\n
  run -it --rm oci:./image:latest sh\n
  cat data | run -i --rm IMAGE sha256sum\n
  run -d --name web -p 8080:80 -v ./site:/var/www/html:ro IMAGE
"""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    # Options end at IMAGE. The rest is the container's command line, as in docker.
    app.command("run", context_settings={"allow_interspersed_args": False}, epilog=EXAMPLES)(run)


def run(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="oci:, oci-archive:, docker-archive:, docker://, ..., or a name.")],
    command: Words = None,
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="Keep standard input open.")] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give the process a terminal.")] = False,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="In the background; print the container's id.")] = False,
    remove: Annotated[bool, typer.Option("--rm", help="Forget the container when it ends.")] = False,
    name: Annotated[str, typer.Option("--name", help="A name for exec, logs, stop, ...")] = "",
    env: Annotated[list[str] | None, typer.Option("-e", "--env", metavar="NAME[=VALUE]", help="Set a variable.")] = None,
    env_file: Annotated[list[Path] | None, typer.Option("--env-file", help="Set variables from a file.")] = None,
    volume: Annotated[list[str] | None, typer.Option("-v", "--volume", metavar="HOST:GUEST[:ro]", help="Share a folder or file.")] = None,
    publish: Annotated[list[str] | None, typer.Option("-p", "--publish", metavar="[[IP:]HOST:]PORT[/udp]", help="Forward a port.")] = None,
    workdir: Annotated[str | None, typer.Option("-w", "--workdir", help="Working folder.")] = None,
    user: Annotated[str | None, typer.Option("-u", "--user", metavar="USER[:GROUP]", help="By name or number.")] = None,
    group_add: Annotated[list[str] | None, typer.Option("--group-add", metavar="GROUP", help="One more group, by name or number.")] = None,
    hostname: Annotated[str | None, typer.Option("-h", "--hostname", help="The container's host name.")] = None,
    add_host: Annotated[
        list[str] | None, typer.Option("--add-host", metavar="NAME:IP", help="A line of /etc/hosts; host-gateway is the host's address.")
    ] = None,
    dns: Annotated[list[str] | None, typer.Option("--dns", metavar="IP", help="A name server in place of the host's.")] = None,
    dns_search: Annotated[list[str] | None, typer.Option("--dns-search", metavar="DOMAIN", help="A search domain; . is none.")] = None,
    dns_option: Annotated[list[str] | None, typer.Option("--dns-option", metavar="OPTION", help="An option of resolv.conf(5).")] = None,
    memory: Annotated[str | None, typer.Option("-m", "--memory", help="Limit, like 512m.")] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", help="Limit, like 1.5.")] = None,
    pids_limit: Annotated[int | None, typer.Option("--pids-limit", help="Limit of processes and threads.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="A root that cannot be written.")] = False,
    tmpfs: Annotated[list[str] | None, typer.Option("--tmpfs", metavar="PATH[:OPTIONS]", help="A tmpfs at PATH.")] = None,
    shm_size: Annotated[str | None, typer.Option("--shm-size", help="Size of /dev/shm.")] = None,
    cap_add: Annotated[list[str] | None, typer.Option("--cap-add", metavar="CAP", help="Add a capability.")] = None,
    cap_drop: Annotated[list[str] | None, typer.Option("--cap-drop", metavar="CAP", help="Drop a capability, or ALL.")] = None,
    security_opt: Annotated[
        list[str] | None,
        typer.Option("--security-opt", metavar="OPT", help="seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, label=..., ..."),
    ] = None,
    ulimit: Annotated[list[str] | None, typer.Option("--ulimit", metavar="NAME=SOFT[:HARD]", help="A resource limit.")] = None,
    sysctl: Annotated[list[str] | None, typer.Option("--sysctl", metavar="NAME=VALUE", help="A kernel setting of the container.")] = None,
    entrypoint: Annotated[str | None, typer.Option("--entrypoint", help="In place of the image's.")] = None,
    init: Annotated[bool, typer.Option("--init", help="A small init as the container's first process.")] = False,
    stop_signal: Annotated[str | None, typer.Option("--stop-signal", help="In place of the image's.")] = None,
    network: Annotated[str, typer.Option("--network", help="user, or none: loopback only.")] = "user",
    scratch: Annotated[str, typer.Option("--scratch", metavar="SIZE", help="Disk space for what the container writes.")] = "8g",
    accel: Annotated[str, typer.Option("--accel", help="auto, kvm or tcg.")] = "auto",
    vm_memory: Annotated[str | None, typer.Option("--vm-memory", help="Memory of the machine; default: --memory and more, or 2g.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that the guest may take to answer.", min=1)] = 120,
    guest_variant: Annotated[Variant, typer.Option("--guest-variant", help="As `build --variant`: selinux has SELinux.")] = "release",
    debug_guest: Annotated[
        bool, typer.Option("--debug-guest", help="As --guest-variant debug: a guest with a shell (see `shell`).")
    ] = False,
) -> int:
    """Run a command in a container of IMAGE, in a virtual machine of its own.

    Standard output carries the container's bytes and nothing else; the exit status is the container's.
    """
    from innkeeper.engine import attach, monitor, resolve, session
    from innkeeper.image import RunOptions, parse

    if not detach:
        attach.check_terminal(interactive, tty)
    options = RunOptions(
        args=command or [],
        interactive=interactive,
        tty=tty,
        env=env or [],
        env_files=env_file or [],
        volumes=[parse.parse_volume(text) for text in volume or []],
        ports=[port for text in publish or [] for port in parse.parse_ports(text)],
        workdir=workdir,
        user=user,
        group_add=group_add or [],
        hostname=parse.parse_hostname(hostname) if hostname is not None else None,
        add_hosts=[parse.parse_add_host(text) for text in add_host or []],
        dns=[parse.parse_dns(text) for text in dns or []],
        dns_search=[parse.parse_word(text, "--dns-search") for text in dns_search or []],
        dns_options=[parse.parse_word(text, "--dns-option") for text in dns_option or []],
        memory=parse.parse_memory(memory) if memory else None,
        cpus=parse.parse_cpus(cpus) if cpus else None,
        pids_limit=pids_limit,
        read_only=read_only,
        tmpfs=[parse.parse_tmpfs(text) for text in tmpfs or []],
        cap_add=cap_add or [],
        cap_drop=cap_drop or [],
        ulimits=[parse.parse_ulimit(text) for text in ulimit or []],
        sysctls=dict(parse.parse_sysctl(text) for text in sysctl or []),
        entrypoint=entrypoint,
        init=init,
        stop_signal=stop_signal,
        mac=resolve.mandatory_access_control(guest_variant),
    )
    if shm_size:
        options.shm_size = parse.parse_size(shm_size, "--shm-size")
    parse.parse_security_opts(security_opt or [], options)
    request = resolve.RunRequest(
        reference=image,
        name=name,
        detached=detach,
        remove=remove,
        network=resolve.network(network),
        scratch=parse.parse_size(scratch, "--scratch"),
        accel=resolve.accelerator(accel),
        vm_memory=parse.parse_size(vm_memory, "--vm-memory") if vm_memory else None,
        timeout=timeout,
        guest=resolve.guest_variant(guest_variant, debug_guest),
    )
    resolved = resolve.resolve_run(request, options)
    if not detach:
        return session.run(resolved)
    print(monitor.start(resolved))
    return 0
