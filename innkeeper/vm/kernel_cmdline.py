"""The kernel's command line: each parameter and its purpose."""

from collections.abc import Iterable

from innkeeper.errors import InnkeeperError
from innkeeper.vm.config import VIRT

LIMIT = 2048 - 8 * 48
"""Longest command line in bytes, with the final NUL. The kernel silently truncates longer ones.

This is COMMAND_LINE_SIZE of x86, minus what QEMU adds for the eight devices of a microvm.
"""

ALWAYS = (
    "panic=-1",  # a panic resets at once; QEMU has -no-reboot and ends
    "random.trust_cpu=on",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",  # grace periods cost latency in namespace and mount calls
    "cgroup_no_v1=all",
    "net.ifnames=0",
)
X86 = (
    "console=ttyS0",
    "reboot=t",  # by triple fault: the shortest way out, and microvm has no other
    "tsc=reliable",  # no calibration against other clocks
    "no_timer_check",
)
AARCH64 = ("console=ttyAMA0",)
LEGACY_HARDWARE = ("i8042.noaux", "i8042.nokbd")
NO_PCI_BRIDGES = ("pci=lastbus=0",)
BARE = ("acpi=off",)
"""Parameters for a microvm, which has no ACPI.

Not looking for it saves an error line on the console.
"""
EMULATED = ("noreplace-smp",)
"""Parameters for TCG. Patching code is slow if each patched page has to be translated again."""
CLEAR_PAGES = ("init_on_alloc=1",)
"""The parameter of a cloneable VM: a page that is used again has nothing of its earlier use.

A page of the kernel's objects keeps its old content where no object was made yet, and it is never
free. Debian's kernel has this by default.
"""
HZ = 250
"""The guest's CONFIG_HZ, from which `lpj` (loops per jiffy) is computed.

`lpj` saves each processor its calibration, and only short busy waits depend on it.
"""
READY = "INNKEEPER_READY"
"""The parameter with the port of the host that the agent calls once it listens.

The kernel puts a parameter that it does not know, and that has no dot, into the environment of the
first process. The agent can read it there without /proc.
"""

CHANNEL = "INNKEEPER_CHANNEL"
"""The parameter that names what carries the guest's ports: `virtio-serial`, or vsock without it."""


def join(words: Iterable[str]) -> str:
    """Return `words` as one string. Raises InnkeeperError if the kernel would truncate it.

    A word with white space is quoted for the kernel's parser (lib/cmdline.c, next_arg).
    """
    line = " ".join(quote(word) for word in words)
    if len(line) >= LIMIT:
        raise InnkeeperError(f"the kernel command line has {len(line)} characters, the kernel takes {LIMIT - 1}")
    return line


def quote(word: str) -> str:
    """Return `word`, with its value in double quotes if it contains white space.

    Raises InnkeeperError for a double quote, which cannot be escaped, for line ends, NUL and empty
    words.
    """
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
    channel: str | None = None,
    tsc_khz: int | None = None,
    cloneable: bool = False,
    extra: Iterable[str] = (),
) -> str:
    """Return the command line of a guest.

    `ready_port` is the port of the host that the guest calls, `channel` what carries the guest's
    ports if that is not vsock. For `tsc_khz` see `tsc`. `cloneable`: the guest's state can be
    saved, and its q35 has other PCI buses than the root's.
    """
    words = [*(AARCH64 if machine_type == VIRT else X86), *ALWAYS, f"root={root_device}", f"rootfstype={root_type}", "ro"]
    if machine_type == "microvm":
        words.extend(BARE)
    elif machine_type != VIRT:
        words.extend(LEGACY_HARDWARE)
        if not cloneable:
            words.extend(NO_PCI_BRIDGES)
    if cloneable:
        words.extend(CLEAR_PAGES)
    if quiet:
        words.append("quiet")
    if tsc_khz is not None:
        words += [f"tsc_early_khz={tsc_khz}", f"lpj={tsc_khz * 1000 // HZ}", *EMULATED]
    if ready_port is not None:
        words.append(f"{READY}={ready_port}")
    if channel is not None:
        words.append(f"{CHANNEL}={channel}")
    return join([*words, *extra])
