"""Parse services and messages from .proto files, with their comments.

Only the subset of the language that this project uses is supported.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

_RPC = re.compile(r"rpc (\w+)\((stream )?([\w.]+)\) returns \((stream )?([\w.]+)\);")


@dataclass(frozen=True)
class Method:
    """An RPC. `request` and `response` begin with `stream ` if they are streams."""

    name: str
    request: str
    response: str
    comment: str


@dataclass
class Service:
    """A service, by its full name (package and name)."""

    name: str
    methods: list[Method] = field(default_factory=list)


@dataclass(frozen=True)
class File:
    """A .proto file.

    It has the comment at its top, its services, and the text of each top-level message and
    enumeration.
    """

    name: str
    comment: str
    services: tuple[Service, ...]
    messages: tuple[tuple[str, str], ...]


def read(path: Path) -> File:
    """Parse one .proto file."""
    text = path.read_text()
    package = found[1] if (found := re.search(r"^package ([\w.]+);", text, re.M)) else ""
    services: list[Service] = []
    messages: list[tuple[str, str]] = []
    for match in re.finditer(r"^(service|message|enum) (\w+) \{\n(.*?)^\}\n|^message (\w+) \{\}\n", text, re.M | re.S):
        if match[1] == "service":
            services.append(_service(f"{package}.{match[2]}", match[3]))
        else:
            messages.append((match[2] or match[4], match[0].rstrip()))
    head = re.match(r"(?://.*\n)+", text)
    return File(path.name, _comment(head[0].splitlines()) if head else "", tuple(services), tuple(messages))


def _service(name: str, body: str) -> Service:
    service = Service(name)
    comment: list[str] = []
    for line in map(str.strip, body.splitlines()):
        if line.startswith("//"):
            comment.append(line)
        elif match := _RPC.fullmatch(line):
            service.methods.append(Method(match[1], (match[2] or "") + match[3], (match[4] or "") + match[5], _comment(comment)))
            comment = []
        else:
            comment = []  # an empty line ends a comment for a group of RPCs
    return service


def _comment(lines: list[str]) -> str:
    return " ".join(line.removeprefix("//").strip() for line in lines)
