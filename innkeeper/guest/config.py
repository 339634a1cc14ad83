"""The configuration of a guest image: what `guest.toml` says, as checked values.

    guest = config_file.read([Path("guest.toml")])

`Guest()` is the default image. The fields carry their documentation: the JSON schema, the reference
page and the messages about unknown keys are made from it (`config_schema`, `config_file`).
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any

from innkeeper.errors import InnkeeperError

X86_64 = "x86_64"
ARCHITECTURES = (X86_64, "aarch64")
VARIANTS = ("release", "debug", "selinux")
OUTPUTS = {
    "kernel": "`bzImage` and `config`; `vmlinux` of ours, `modules.initrd` of Debian's",
    "root": "`rootfs.erofs`",
    "verity": "`verity.toml`, the hash of the root for a boot that verifies it",
    "disk": "`innkeeper.img`, the root and its hash tree as a disk or memory device",
    "initrd": "`innkeeper.initrd`, the root for a VM without a disk",
    "uki": "`innkeeper.efi`, our kernel and the hash of the root as one program for UEFI firmware; needs `disk`",
    "sbom": "`sbom.cdx.json`, a bill of materials (CycloneDX 1.6): every file of the root with its origin",
    "spdx": "`sbom.spdx.json`, the same in the format of SPDX 2.3",
}
"""The outputs that may be asked for, and the files of each. `manifest.json` is always written."""
DEFAULT_OUTPUTS = ("kernel", "root", "verity", "disk", "initrd")
NOT_YET = {
    "outputs": {"oci": "an OCI artefact is made of the outputs by --push"},
}
"""Values that are refused by name, because a user may expect them: field -> value -> reason."""

POLICY_PATH = "/etc/innkeeper/policy.toml"
"""Where the agent looks for a policy of the image (docs/policy.md)."""
SETTINGS_PATH = "/etc/innkeeper/agent.toml"
"""Where the agent's settings are. The kernel parameter SETTINGS_WORD makes the agent read them."""
SETTINGS_WORD = f"agent.config_file={SETTINGS_PATH}"


def setting(default: Any, text: str, **rules: Any) -> Any:
    """Return a field with its documentation.

    `rules`: `choices`, or `is_file`: a path that the reader resolves.
    """
    return field(default=default, metadata={"text": text, **rules})


@dataclass(frozen=True)
class KernelPart:
    """The kernel that the guest boots, and its parameters."""

    use: str = setting(
        "auto",
        "`ours`, `debian` (ready-made, nothing is compiled), or the path of a kernel with everything built in. "
        "`auto` is `ours` for `build`. For `run` it is ours if that is built already, or if the file sets `source` or `fragments`, "
        "else Debian's.",
        is_file=("auto", "ours", "debian"),
    )
    source: str = setting(
        "linux-source-6.12",
        "The Debian package with the source of our kernel.",
        choices=("linux-source-6.12", "linux-source-6.1"),
    )
    fragments: tuple[str, ...] = setting(
        (),
        "Files with further options of our kernel, in the format of `kernel-config/`: each symbol with its reason. "
        "A symbol that a fragment of ours sets cannot be set again.",
        is_file=(),
    )
    parameters: tuple[str, ...] = setting(
        (),
        'Words for the kernel\'s command line, such as `"loglevel=7"`. `run --guest` passes them, and the manifest lists '
        "them for other ways to boot.",
    )


@dataclass(frozen=True)
class RootPart:
    """What the root file system holds besides the agent."""

    gateway: bool = setting(True, "Whether the root holds the gRPC gateway. Without it the agent is reached by ttRPC only.")
    packages: tuple[str, ...] = setting(
        (),
        "Debian packages. Their files and those of their dependencies are copied into the root, without documentation. Of "
        "packages that Debian's base system has, only the libraries that are linked are copied.",
    )


@dataclass(frozen=True)
class FilePart:
    """A file, folder or link to add to the root: one of `source`, `text`, `link` and `folder`."""

    path: str = setting("", "The absolute path in the guest. Folders on the way are made.")
    source: str = setting("", "A file or folder of the host to copy, relative to this guest.toml.", is_file=())
    text: str = setting("", "The content as text.")
    link: str = setting("", "The target of a symbolic link.")
    folder: bool = setting(False, "An empty folder, for example a mount point.")
    mode: str = setting(
        "", 'The mode in octal, such as `"0600"`. Default: 0755 for folders and for files that their owner may execute, else 0644.'
    )
    owner: str = setting("0:0", "The numeric owner and group, such as `1000:1000`.")
    replace: bool = setting(False, "Whether a file that the root has already is replaced. Without it this is an error.")


@dataclass(frozen=True)
class AgentPart:
    """Policy and settings of the agent in the guest."""

    policy: str = setting("", f"A policy file, which becomes `{POLICY_PATH}` ([Policy](../policy.md)).", is_file=())
    settings: dict[str, Any] = field(
        default_factory=dict,
        metadata={
            "text": f"The agent's settings by their TOML keys ([boot parameters](boot-parameters.md)). They become `{SETTINGS_PATH}`, "
            "and the agent then ignores settings on the kernel's command line."
        },
    )


@dataclass(frozen=True)
class BudgetsPart:
    """The largest sizes, in bytes. A build whose result is larger fails."""

    kernel: int = setting(6_000_000, "Of `bzImage`, if the kernel is ours.")
    root: int = setting(25_000_000, "Of `rootfs.erofs`.")


@dataclass(frozen=True)
class Guest:
    """The image as a whole."""

    architecture: str = setting(
        X86_64,
        "The processor architecture. For `aarch64`, our kernel is made by Debian's cross compiler, and the root in a builder whose "
        "programs are emulated.",
        choices=ARCHITECTURES,
    )
    variant: str = setting(
        "release",
        "`debug` adds busybox and a shell. `selinux` adds an SELinux policy, and boots with SELinux in place of AppArmor.",
        choices=VARIANTS,
    )
    outputs: tuple[str, ...] = setting(DEFAULT_OUTPUTS, "What is written to the output folder.", choices=tuple(OUTPUTS))
    kernel: KernelPart = KernelPart()
    root: RootPart = RootPart()
    files: tuple[FilePart, ...] = ()
    agent: AgentPart = field(default_factory=AgentPart)
    budgets: BudgetsPart = BudgetsPart()

    @property
    def foreign(self) -> str:
        """Return the architecture if its programs do not run on x86-64, else an empty string."""
        return "" if self.architecture == X86_64 else self.architecture

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the words for the kernel's command line."""
        return (*self.kernel.parameters, *((SETTINGS_WORD,) if self.agent.settings else ()))

    @property
    def is_customised(self) -> bool:
        """Return whether the root differs from the one that `rootfs/` describes."""
        return bool(self.root.packages or self.files or self.agent.policy or self.agent.settings)


PARTS: dict[str, type] = {"kernel": KernelPart, "root": RootPart, "files": FilePart, "agent": AgentPart, "budgets": BudgetsPart}
"""The tables of guest.toml by name. `files` is an array of tables."""


def check(guest: Guest) -> Guest:
    """Return `guest`. Raises InnkeeperError for settings that contradict each other."""
    kernel = guest.kernel
    if guest.foreign:
        _check_foreign(guest)
    if kernel.fragments and kernel.use not in ("auto", "ours"):
        raise InnkeeperError(
            f"kernel.fragments cannot be used with kernel.use = {kernel.use!r}: only our own kernel is compiled",
            hint='leave one of them out, or use kernel.use = "ours"',
        )
    default_source = next(one.default for one in fields(KernelPart) if one.name == "source")
    if kernel.source != default_source and kernel.use not in ("auto", "ours"):
        raise InnkeeperError(
            f"kernel.source = {kernel.source!r} cannot be used with kernel.use = {kernel.use!r}", hint="leave one of them out"
        )
    if "uki" in guest.outputs:
        _check_uki(guest)
    for word in kernel.parameters:
        if not word or any(character in word for character in '"\n\0'):
            raise InnkeeperError(f"kernel.parameters: {word!r}: empty words, double quotes, line ends and NUL cannot be passed")
        if guest.agent.settings and word.startswith("agent.config_file="):
            raise InnkeeperError(f"kernel.parameters: {word} and agent.settings cannot be used together", hint="leave one of them out")
    for package in guest.root.packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]", package):
            raise InnkeeperError(
                f"root.packages: {package!r} is not the name of a Debian package", hint="versions and releases cannot be chosen"
            )
    seen: set[str] = set()
    for entry in guest.files:
        if entry.path in seen:
            raise InnkeeperError(f"files: {entry.path} is there twice")
        seen.add(entry.path)
    for path, given, name in ((POLICY_PATH, guest.agent.policy, "policy"), (SETTINGS_PATH, guest.agent.settings, "settings")):
        if given and path in seen:
            raise InnkeeperError(f"files: {path} is what agent.{name} becomes", hint="leave one of them out")
    for name, budget in vars(guest.budgets).items():
        if budget <= 0:
            raise InnkeeperError(f"budgets.{name} = {budget}: not a size in bytes")
    return guest


def _check_uki(guest: Guest) -> None:
    if guest.kernel.use not in ("auto", "ours"):
        raise InnkeeperError(
            f"outputs = 'uki' cannot be used with kernel.use = {guest.kernel.use!r}: only our own kernel opens a root by its hash",
            hint='leave one of them out, or use kernel.use = "ours"',
        )
    if "disk" not in guest.outputs:
        raise InnkeeperError("outputs = 'uki' needs the output disk: a unified kernel image has its root there", hint="add disk to outputs")


def _check_foreign(guest: Guest) -> None:
    """Raise InnkeeperError for what is made for x86-64 only."""
    where = f"architecture = {guest.architecture!r}"
    plain = Guest()
    if guest.kernel.use not in ("auto", "ours") or guest.kernel.source != plain.kernel.source:
        raise InnkeeperError(f"{where} cannot be used with kernel.use and kernel.source: ours is the only kernel", hint="leave them out")
    if guest.budgets.kernel != plain.budgets.kernel:
        raise InnkeeperError(f"{where} cannot be used with budgets.kernel: it is that of bzImage", hint="leave it out")
    if "uki" in guest.outputs:
        raise InnkeeperError(f"{where} cannot be used with outputs = 'uki': its stub is that of x86-64", hint="take uki out of outputs")
