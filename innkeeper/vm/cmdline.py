"""The kernel's command line: words, and what each is for."""

from collections.abc import Iterable

from innkeeper.errors import InnkeeperError

LIMIT = 2048 - 8 * 48
"""COMMAND_LINE_SIZE of x86, less what QEMU adds for the eight devices of a microvm. The kernel cuts what is longer without a word."""

ALWAYS = (
    "console=ttyS0",
    "panic=-1",  # a panic resets at once; QEMU has -no-reboot and ends
    "reboot=t",  # by triple fault: the shortest way out, and microvm has no other
    "tsc=reliable",  # no calibration against other clocks
    "no_timer_check",
    "random.trust_cpu=on",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",  # grace periods cost latency in namespace and mount calls
    "cgroup_no_v1=all",
    "net.ifnames=0",
)
LEGACY_HARDWARE = ("i8042.noaux", "i8042.nokbd", "pci=lastbus=0")
BARE = ("acpi=off",)
"""A microvm has none; not looking for it saves an error line on the console."""
EMULATED = ("noreplace-smp",)
"""Code patching is slow where each patched page has to be translated again."""
HZ = 250
"""The guest's CONFIG_HZ; `lpj` (loops in a jiffy) saves each processor its calibration, and only short busy waits depend on it."""
READY = "INNKEEPER_READY"
"""The port of the host that the agent calls when it listens. A word without a dot that the kernel does not know becomes part of
the first process's environment, which needs no /proc to be read."""


def join(words: Iterable[str]) -> str:
    """One string of `words`; a word with white space is quoted as the kernel's parser (lib/cmdline.c next_arg) takes it."""
    line = " ".join(quote(word) for word in words)
    if len(line) >= LIMIT:
        raise InnkeeperError(f"the kernel command line has {len(line)} characters, the kernel takes {LIMIT - 1}")
    return line


def quote(word: str) -> str:
    """`word`, with its value in double quotes if it has white space. There is no escape for a double quote: refused."""
    if '"' in word or "\n" in word or "\0" in word or not word:
        raise InnkeeperError(f"kernel parameter {word!r}: empty words, double quotes, line ends and NUL cannot be passed")
    if not any(c.isspace() for c in word):
        return word
    name, equals, value = word.partition("=")
    if any(c.isspace() for c in name):
        return f'"{word}"'
    return f'{name}{equals}"{value}"'


def build(
    *,
    machine_type: str,
    quiet: bool,
    root_device: str,
    root_type: str,
    ready_port: int | None = None,
    tsc_khz: int | None = None,
    extra: Iterable[str] = (),
) -> str:
    """The whole command line of a guest. `ready_port`: which port of the host it calls; `tsc_khz`: see `tsc`."""
    words = [*ALWAYS, f"root={root_device}", f"rootfstype={root_type}", "ro"]
    if machine_type == "microvm":
        words.extend(BARE)
    else:
        words.extend(LEGACY_HARDWARE)
    if quiet:
        words.append("quiet")
    if tsc_khz is not None:
        words += [f"tsc_early_khz={tsc_khz}", f"lpj={tsc_khz * 1000 // HZ}", *EMULATED]
    if ready_port is not None:
        words.append(f"{READY}={ready_port}")
    return join([*words, *extra])
