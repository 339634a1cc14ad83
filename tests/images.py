"""OCI images for tests, made here: a busybox from scratch, and a Debian with python3, redis and nginx.

Each function returns a reference (`oci-archive:...`) into the cache; what is made once is kept there as a build step.
Nothing is pulled from a container registry.
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from innkeeper import paths, programs, progress
from innkeeper.files import hash_file
from innkeeper.guest import archives, debian
from innkeeper.guest.buildah import Buildah
from innkeeper.guest.builder import SOURCE_DATE_EPOCH, SUITE
from innkeeper.guest.foreign import MACHINES
from innkeeper.guest.freeze import PACKAGES as BUILDER_PACKAGES
from innkeeper.guest.pins import Request
from innkeeper.guest.store import JSON, Store

PACKAGES = ["python3", "redis-server", "nginx-light"]
PYTHON_PACKAGES = ["python3", "python3-prctl", "python3-pytest", "busybox-static"]
JAVA_PACKAGES = ["default-jdk-headless"]
ARCHIVE = "image.tar"
APPLETS = (
    "[ awk cat chmod chown cp cut date dd df dmesg du echo env expr false find free getopt grep head hostname id ifconfig ip kill ln ls "
    "mkdir mknod mount mv nc netstat nproc nslookup od ping ps pwd readlink rm rmdir route sed seq sh sha256sum sleep sort stat stty su "
    "sync tail tar tee test timeout top touch tr true tty umount uname unshare wc wget which whoami yes"
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/home/guest:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUP = "root:x:0:\ntty:x:5:\nguest:x:1000:\naudio:x:29:guest\nnogroup:x:65534:\n"


@dataclass(frozen=True)
class Config:
    """What `buildah config` is to set."""

    cmd: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str = ""
    port: str = ""
    stop_signal: str = ""
    workdir: str = ""
    arch: str = ""

    def options(self) -> list[str]:
        """As arguments of `buildah config`."""
        listed = [f"--env={entry}" for entry in self.env]
        if self.cmd:
            listed.append("--cmd=" + "[" + ", ".join(f'"{word}"' for word in self.cmd) + "]")
        named = {"user": self.user, "port": self.port, "stop-signal": self.stop_signal, "workingdir": self.workdir, "arch": self.arch}
        return listed + [f"--{name}={value}" for name, value in named.items() if value]


class ImageMaker(Buildah):
    """buildah with what only tests use."""

    def config(self, container: str, config: Config) -> None:
        """Set a working container's configuration."""
        self._run("config", *config.options(), container)

    def push(self, image: str, destination: str) -> None:
        """Copy a local image to any transport."""
        self._run("push", "--quiet", "--disable-compression", image, destination)

    def remove(self, folder: Path) -> None:
        """Remove a folder with files of the users that an unprivileged run is mapped to."""
        if os.geteuid() == 0:
            subprocess.run(["rm", "-rf", folder], check=True)
        else:
            self._run("unshare", "rm", "-rf", str(folder))


def busybox_image() -> str:
    """A few megabytes: busybox with its common applets, the users root, guest (1000, also in audio) and nobody."""
    program = programs.require("busybox")
    return _image(
        "busybox",
        {"busybox": hash_file(program), "applets": APPLETS},
        lambda into: _busybox_root(program, into),
        Config(["/bin/sh"]),
    )


def foreign_busybox_image(architecture: str) -> str:
    """The same for another architecture, with the busybox that the lock file has for its builder."""
    packages = _store().pins.of(Request(SUITE, tuple(sorted(BUILDER_PACKAGES)), architecture=architecture)) or ()
    (package,) = [one for one in packages if one.name == "busybox-static"]

    def root(into: Path) -> Path:
        (archive,) = archives.fetch(_store(), [package], into / "fetch.log")
        subprocess.run(["dpkg-deb", "-x", archive, into / "package"], check=True)
        return _busybox_root(into / "package/usr/bin/busybox", into)

    inputs: dict[str, JSON] = {"busybox": package.sha256, "applets": APPLETS}
    return _image("busybox", inputs, root, Config(["/bin/sh"], arch=MACHINES[architecture].debian))


def debian_image() -> str:
    """Debian trixie with python3 (and redis and nginx)."""
    return _debian("debian", Config(["bash"]))


def redis_image() -> str:
    """Debian's redis, listening on 6379 of every address."""
    command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
    return _debian("redis", Config(command, user="redis:redis", port="6379/tcp", workdir="/var/lib/redis"))


def nginx_image() -> str:
    """Debian's nginx on port 80, serving /var/www/html; stops on SIGQUIT."""
    return _debian("nginx", Config(["nginx", "-g", "daemon off; error_log stderr;"], port="80/tcp", stop_signal="SIGQUIT"))


def python_image() -> str:
    """Debian trixie with what the core of the agent and its tests import."""
    return _debian("python", Config(["bash"]), PYTHON_PACKAGES)


def java_image() -> str:
    """Debian trixie with what compiles and runs a program in Java."""
    return _debian("java", Config(["bash"]), JAVA_PACKAGES)


def _debian(name: str, config: Config, packages: Sequence[str] = PACKAGES) -> str:
    def make(out: Path) -> None:
        with progress.step("making a Debian root for tests"):
            debian.mmdebstrap(out / "root.tar", SUITE, packages, SOURCE_DATE_EPOCH, _store().log_of(out))

    root = _store().step("test-debian", {"suite": SUITE, "packages": list(packages)}, make)
    return _image(name, {"root": hash_file(root / "root.tar")}, lambda into: root / "root.tar", config)


def _busybox_root(program: Path, into: Path) -> Path:
    root = into / "root"
    for folder in ("bin", "etc", "root", "home/guest", "tmp", "var", "proc", "sys", "dev"):
        (root / folder).mkdir(parents=True)
    os.chmod(root / "tmp", 0o1777)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    subprocess.run(["cp", str(program.resolve()), str(root / "bin/busybox")], check=True)
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    archive = into / "root.tar"
    subprocess.run(["tar", "--owner=0", "--group=0", "--sort=name", "-C", str(root), "-cf", str(archive), "."], check=True)
    return archive


def _image(name: str, inputs: Mapping[str, JSON], root: Callable[[Path], Path], config: Config) -> str:
    """The reference of an image whose one layer is the tar archive that `root` makes (in the folder it is given)."""

    def make(out: Path) -> None:
        work = out / "work"
        work.mkdir()
        buildah = ImageMaker(work / "storage")
        buildah.from_("scratch", "made")
        buildah.add("made", root(work), "/")
        buildah.config("made", config)
        buildah.commit("made", f"localhost/{name}:latest")
        buildah.push(f"localhost/{name}:latest", f"oci-archive:{out / ARCHIVE}:{name}")
        buildah.remove(work)

    result = _store().step(f"test-image-{name}", {**inputs, "config": list(config.options())}, make)
    return f"oci-archive:{result / ARCHIVE}"


def _store() -> Store:
    return Store(paths.store_root())
