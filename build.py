#!/usr/bin/env -S python3 -S
"""Create a private virtual environment on the first run, then start `innkeeper.cli` in it.

The environment is in the cache. Its name is a hash of what it depends on (pyproject.toml and this
Python), a marker file shows that it is complete, and a lock keeps two first runs apart. `--help`
lists the commands. Only the standard library is used here.

Python's -S leaves out the packages of the host, which `ps` would pay for and not use. Commands then
run in this interpreter, without the start of a second one. After `python3 build.py`, without -S,
and for `test` and `bench`, whose packages need a complete environment, the environment's Python
takes over.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
COMPLETE = "complete"
PYTHON = "bin/python"
EXTRAS = {"test": "test", "bench": "test", "shim": "shim"}
"""Command -> the optional dependencies that it needs.

bench runs the agent from the source tree too.
"""


def main() -> int:
    """Run the command line with the private environment."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets this message
        print(f"innkeeper: python 3.11 or later is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 125
    # If the caller closed a standard stream, the next file that is opened would take its number,
    # and output would be written into it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - progress is printed there
    sys.path.insert(0, str(ROOT))
    _keep_bytecode_in_the_cache()
    if "--no-install" in sys.argv[1:]:
        os.environ["INNKEEPER_NO_INSTALL"] = "1"
    words = sys.argv[1:]
    verb = next((word for word in words if not word.startswith("-")), "")
    if {"-q", "--quiet"} & set(words[: words.index(verb)] if verb else words):
        from innkeeper import progress

        progress.be_quiet()
    extra = EXTRAS.get(verb, "")
    from innkeeper.errors import InnkeeperError

    try:
        python = environment(extra)
    except InnkeeperError as error:
        print(f"innkeeper: {error.message}", *([f"  {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        return error.exit_status
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if extra or not sys.flags.no_site:
        # -P: not the innkeeper of a folder that a user happens to be in.
        return os.execv(python, [str(python), "-P", "-m", "innkeeper.cli", *sys.argv[1:]])
    sys.path.append(str(python.parents[1] / "lib" / Path(os.__file__).parent.name / "site-packages"))
    sys.executable = str(python)  # what we start, as a container's monitor, has the same packages
    from innkeeper import cli

    return cli.run_and_leave()


def _keep_bytecode_in_the_cache() -> None:
    """Make this process and its children write bytecode to the cache, never beside a source.

    So "write none" (set in many container images) is not heeded: without bytecode each command
    takes a second longer.
    """
    if "PYTHONPYCACHEPREFIX" not in os.environ:
        sys.dont_write_bytecode = True  # the next import would write beside its source
        from innkeeper.paths import cache_root

        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(cache_root() / "pycache")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.dont_write_bytecode = False


def environment(extra: str) -> Path:
    """Return the interpreter of the environment for `extra` ("", "shim" or "test").

    Create it if needed. The environment for "test" also serves for the others, since it contains
    everything.
    """
    base = base_folder()
    folder = base.with_name(f"{base.name}-{extra}") if extra else base
    for candidate in (folder, base.with_name(f"{base.name}-test")):
        if (candidate / COMPLETE).exists():
            return candidate / PYTHON
    _make_locked(folder, extra)
    return folder / PYTHON


def base_folder() -> Path:
    """Return the folder of the environment for "", named by a hash of what it is made from."""
    from innkeeper.paths import cache_root

    # hashlib would load OpenSSL, which takes longer than all else here.
    for module in ("_sha2", "_sha256", "hashlib"):
        try:
            sha256 = __import__(module).sha256
            break
        except ImportError:
            continue  # of another version of Python, or not built
    made_from = [(ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), os.path.realpath(sys.executable).encode()]
    name: str = sha256(b"\0".join(made_from)).hexdigest()[:16]
    return cache_root() / "venv" / name


def _make_locked(folder: Path, extra: str) -> None:
    from innkeeper.files import locked

    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), work="makes the private Python environment"):
        if not (folder / COMPLETE).exists():
            _make(folder, extra)


def _make(folder: Path, extra: str) -> None:
    import shutil
    import tomllib

    from innkeeper import programs, progress

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    if extra == "test":
        programs.require_all(("gcc", "sys/capability.h", "Python.h"))
    shutil.rmtree(folder, ignore_errors=True)
    with progress.step(f"making the private Python environment{f' for {extra}' if extra else ''}"):
        try:
            pip = _bare_environment(folder)
            _run([*pip, "install", "--quiet", "--no-input", "--disable-pip-version-check", *wanted], folder)
            (folder / COMPLETE).touch()
        except BaseException:  # an unfinished environment must not stay
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _bare_environment(folder: Path) -> list[str]:
    """Create an empty virtual environment in `folder` and return the command of its pip.

    Debian splits pip and ensurepip into packages of their own, so pip may come from ensurepip, from
    Debian's wheel, or from this Python.
    """
    from innkeeper import programs

    python = folder / PYTHON
    ensurepip = "import ensurepip; ensurepip.version()"  # Debian ships it, or its wheels, in a separate package
    if not (_python_runs(ensurepip) or _python_runs("import pip") or _pip_wheel()):
        programs.require("ensurepip")
    if _python_runs(ensurepip):
        _run([sys.executable, "-m", "venv", str(folder)], folder)
        return [str(python), "-m", "pip"]
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    if wheel := _pip_wheel():
        return [str(python), f"{wheel}/pip"]
    return [sys.executable, "-m", "pip", "--python", str(python)]


def _python_runs(code: str) -> bool:
    """Return whether this Python, with the packages of the host, runs `code` without an error."""
    import subprocess

    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def _pip_wheel() -> Path | None:
    return next(iter(sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"), reverse=True)), None)


def _run(argv: list[str], folder: Path) -> None:
    """Run a command that helps to create `folder`.

    Raises InnkeeperError with the last lines of its output.
    """
    import subprocess

    from innkeeper.errors import InnkeeperError

    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stdout.decode(errors="replace").splitlines()[-8:])
        raise InnkeeperError(
            f"{' '.join(argv[:6])} ... failed with status {done.returncode}:\n{last}",
            hint=f"the environment would be {folder}; pip needs a package index (see pip's own configuration)",
        )


if __name__ == "__main__":
    sys.exit(main())
