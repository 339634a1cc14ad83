"""Where the attackers run: below an agent beside this machine's processes (target_native), or in a guest (target_guest)."""

import itertools
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from innkeeper.client import Agent, RpcError
from innkeeper.image import process_to_proto, to_proto
from innkeeper.image.defaults import ALL_CAPABILITIES
from innkeeper.wire.pb import agent_pb2
from tests.escape.canary import make_canary
from tests.escape.documents import EXEC, PROGRAM, ROOT, Document, document, with_capabilities
from tests.escape.report import Answer, Report, parse

READ = 1 << 20
PATIENCE = 120.0
"""Seconds after which a call counts as hung; nothing is asserted about time."""
PLACES = ("proc", "sys", "dev", "etc", "tmp", "bin", "root", "volume")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"


SHARED = "/run/kata-containers/shared"


class Target(ABC):
    """An agent, a folder that both it and the test see, and a way to look at what the agent has."""

    name = ""
    slow = False
    """In an emulated guest: races and floods are run fewer times."""

    lacking: frozenset[str] = frozenset()
    """Capabilities that the agent itself has not."""

    def __init__(self, outside: Path, inside: str, payload: Path) -> None:
        self.outside = outside
        self.inside = inside
        self.payload = payload
        self.agent: Agent
        self.address = ""
        """Where the agent listens."""
        self._ids = itertools.count(1)
        self.before: tuple[Counter[str], dict[str, tuple[object, ...]]] | None = None
        """What the last test left, which the next one is held to."""
        self.plain = self.make_root("plain")
        self.hook = outside / "hook"
        """The payload again, for hooks, which run outside of every root."""
        shutil.copy(payload, self.hook)
        make_canary(outside / "canary")

    # places

    def inner(self, path: Path) -> str:
        """A path below `outside`, as the agent sees it."""
        return f"{self.inside}/{path.relative_to(self.outside)}"

    @property
    def canary(self) -> Path:
        """A folder that no container is given."""
        return self.outside / "canary"

    def make_root(self, name: str) -> Path:
        """A new image root with the payload in it."""
        root = self.outside / "roots" / name
        for place in PLACES:
            (root / place).mkdir(parents=True)
        root.chmod(0o755)
        (root / "tmp").chmod(0o1777)
        shutil.copy(self.payload, root / PROGRAM.strip("/"))
        (root / "etc/passwd").write_text(PASSWD)
        return root

    def settle(self) -> None:
        """Have made what is made once and kept by design."""
        self.run(self.document("hold"))
        self.agent.copy_file(agent_pb2.CopyFileRequest(path=f"{SHARED}/containers/x", file_mode=0o100644, dir_mode=0o755))

    def rounds(self, count: int) -> int:
        """How often a race is run here."""
        return max(8, count // 40) if self.slow else count

    # containers

    def document(self, *args: str, who: str = ROOT, root: Path | None = None) -> Document:
        """The default attacker's document."""
        return document(self.inner(root or self.plain), *args, who=who)

    def all_capabilities(self, doc: Document) -> Document:
        """The document with every capability that this agent has to give, and no filter."""
        return with_capabilities(doc, [name for name in ALL_CAPABILITIES if name not in self.lacking])

    def new_id(self) -> str:
        return f"attack-{next(self._ids)}"

    def create(self, doc: Document, container_id: str | None = None, storages: Sequence[agent_pb2.Storage] = ()) -> str:
        """CreateContainer. Raises RpcError."""
        id = self.new_id() if container_id is None else container_id
        request = agent_pb2.CreateContainerRequest(container_id=id, exec_id=id, OCI=to_proto(doc), storages=storages)
        self.agent.create_container(request)
        return id

    def run(self, doc: Document, stdin: bytes = b"") -> Report:
        """Create, start, feed, read to the end, remove. Raises RpcError when it is refused."""
        id = self.create(doc)
        try:
            self.agent.start_container(id)
            return self.finish(id, id, stdin, doc["process"].get("terminal", False))
        finally:
            self.agent.remove_container(id)

    def finish(self, id: str, exec_id: str, stdin: bytes = b"", terminal: bool = False) -> Report:
        """Read a started process to its end."""
        if stdin:
            self.agent.write_stdin(id, exec_id, stdin)
        if not terminal:
            self.agent.close_stdin(id, exec_id)
        output = self._read(self.agent.read_stdout, id, exec_id)
        errors = b"" if terminal else self._read(self.agent.read_stderr, id, exec_id)
        return Report(output, errors, self.agent.wait_process(id, exec_id, PATIENCE))

    def _read(self, read: Callable[[str, str, int], bytes], id: str, exec_id: str) -> bytes:
        parts = []
        while data := read(id, exec_id, READ):
            parts.append(data)
        return b"".join(parts)

    def first_answers(self, id: str, count: int) -> list[Answer]:
        """What a process that goes on has printed so far, `count` lines at least."""
        data = b""
        while data.count(b"\n") < count:
            data += self.agent.read_stdout(id, id, READ)
        return parse(data)

    @contextmanager
    def running(self, doc: Document) -> Iterator[str]:
        """A started container that has printed its first line; removed at the end."""
        id = self.create(doc)
        try:
            self.agent.start_container(id)
            self.agent.read_stdout(id, id, READ)
            yield id
        finally:
            self.agent.remove_container(id)

    def exec(self, id: str, *args: str, **changes: Any) -> Report:
        """One more run of the payload in a container."""
        exec_id = self.start_exec(id, *args, **changes)
        return self.finish(id, exec_id, terminal=bool(changes.get("terminal")))

    def start_exec(self, id: str, *args: str, **changes: Any) -> str:
        """ExecProcess alone; the exec id."""
        exec_id = f"exec-{next(self._ids)}"
        process = {"args": [PROGRAM, *args], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}, **changes}
        self.agent.exec_process(id, exec_id, process_to_proto(process))
        return exec_id

    def attack(self, who: str, *args: str, change: Callable[[Document], object] | None = None, root: Path | None = None) -> Report:
        """What the payload sees as `who`: in a container of its own, or by exec in one that holds still. `change` edits the document."""
        doc = self.document(*(("hold",) if who == EXEC else args), who=who, root=root)
        if change is not None:
            change(doc)
        if who != EXEC:
            return self.run(doc)
        with self.running(doc) as id:
            return self.exec(id, *args)

    def attempt(self, doc: Document) -> Report | RpcError:
        """A run, or the refusal: for races, in which either may come."""
        try:
            return self.run(doc)
        except RpcError as refusal:
            if refusal.lost:
                raise
            return refusal

    # the owner's view

    @abstractmethod
    def look(self) -> list[Answer]:
        """What the agent has: descriptors, mounts, children, groups, files of its state (see tests/payload/observe.c); and FACTS."""

    @abstractmethod
    def log(self) -> str:
        """What the agent has printed."""

    def holdings(self) -> "Counter[str]":
        """What must be the same after a test."""
        return Counter(_holding(answer) for answer in self.look() if answer.attempt != "status" and not _is_kept(answer))

    def resident(self) -> int:
        """The agent's memory, in kB."""
        return next(int(answer.value.split()[1]) for answer in self.look() if answer.attempt == "status")


FACTS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/panic")
"""Settings of the kernel that no container may change."""


def _is_kept(answer: Answer) -> bool:
    """Programs for devices stay for the next container of the same rules, and what the host has copied is the host's."""
    return "bpf-prog" in answer.value or f"/root{SHARED}" in answer.on


def _holding(answer: Answer) -> str:
    if answer.attempt == "mount":  # where and what; options of its file system are the machine's
        fields = answer.value.split(" ")
        return f"mount {' '.join(fields[:5])} {fields[fields.index('-') + 1]}"
    return f"{answer.attempt} {answer.on if answer.attempt in ('group', 'file') else answer.value}"
