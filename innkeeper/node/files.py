"""Files that an operator would otherwise write: containerd's handlers, Kubernetes' manifests."""

from pathlib import Path

from innkeeper import manifests
from innkeeper.manifests import quoted

HANDLER = "innkeeper"
"""Runtime handler: roots of the node's default snapshotter."""
EROFS = "-erofs"
"""The suffix of the runtime handler for roots of the erofs snapshotter, each layer a disk.

containerd has it from 2.1 on.
"""
RUNTIME = "io.containerd.innkeeper.v2"
MEMORY_OVERHEAD = "256Mi"
"""What a pod takes beside its containers.

The control group of an idle pod has 161 to 175 MiB under QEMU's emulation: 90 MiB of QEMU, the shim
and virtiofsd, and the pages of the guest's memory that its kernel and agent have touched.
"""


def configuration(template: str, values: dict[str, Path]) -> str:
    """Return the shim's configuration: `template`, with some keys set.

    The template describes every key.
    """
    lines = []
    for line in template.splitlines():
        name = line.removeprefix("# ").partition(" = ")[0]
        lines.append(f"{name} = {quoted(values[name])}" if name in values and " = " in line else line)
    return "\n".join(lines) + "\n"


def handlers(version: int, configuration_file: Path, name: str = HANDLER) -> str:
    """Return the runtime handlers for a configuration of containerd of `version` 2 or 3."""
    names = (name, name + EROFS) if version == 3 else (name,)
    return f"version = {version}\n" + "".join(_handler(version, one, configuration_file) for one in names)


def _handler(version: int, name: str, configuration_file: Path) -> str:
    keys = ('snapshotter = "erofs"',) if name.endswith(EROFS) else ()
    return manifests.handler(name, RUNTIME, configuration_file, version=version, keys=keys)


def runtime_classes(name: str) -> str:
    """Return the RuntimeClasses of the handlers."""
    return "---\n".join(manifests.runtime_class(one, MEMORY_OVERHEAD) for one in (name, name + EROFS))


def pod(name: str) -> str:
    """Return an example pod."""
    return manifests.example_pod(name, "the guest's kernel, with -innkeeper at the end")


def launcher(python: Path, library: Path, module: str) -> str:
    """Return a program that runs `module` with the packages in `library` in any environment.

    Nothing is written beside the packages: the list of what is installed stays complete.
    """
    code = f"import sys; sys.path.insert(0, {str(library)!r}); from {module} import main; sys.exit(main())"
    return f"""#!/bin/sh
exec {_shell(str(python))} -I -S -B -c {_shell(code)} "$@"
"""


def _shell(word: str) -> str:
    import shlex

    return shlex.quote(word)
