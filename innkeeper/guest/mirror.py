"""Which Debian mirror the builder uses: the one that this host's apt uses, else mmdebstrap's own default.

Both writings of sources are read (sources.list(5)): one line each, and deb822 stanzas. Only entries that carry Debian itself
count: a Debian suite, component `main`. What is taken over is the address and `Signed-By`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_RELEASES = "buster bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable"
_SUITE = re.compile(rf"({'|'.join(_RELEASES.split())})(-updates|-security|-backports|/updates)?\Z")


@dataclass(frozen=True)
class Mirror:
    """A place that carries Debian. `signed_by` is a path of a keyring, a key block, or "" for apt's own trust."""

    uri: str
    signed_by: str
    security: bool

    def sources_line(self, suite: str, keyring: str) -> str:
        """A sources.list(5) line for `suite` at this mirror, signed by the keyring at `keyring` ("" for apt's own trust)."""
        options = f"[signed-by={keyring}] " if keyring else ""
        return f"deb {options}{self.uri} {suite} main"


def host_mirrors(apt: Path = Path("/etc/apt")) -> list[Mirror]:
    """Debian's mirrors in the host's apt configuration: the main one first, then the one for security; either may be missing.

    Only one of each kind is returned: the first that is reached over the network. Ubuntu's and others' entries do not count.
    """
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list")), *sorted((apt / "sources.list.d").glob("*.sources"))]
    found: dict[bool, Mirror] = {}
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        for mirror in _deb822(text) if file.suffix == ".sources" else _one_line(text):
            found.setdefault(mirror.security, mirror)
    return [found[security] for security in (False, True) if security in found]


def _one_line(text: str) -> Iterator[Mirror]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if match:
            options = dict(word.split("=", 1) for word in (match[1] or "").split() if "=" in word)
            yield from _mirrors([match[2]], [match[3]], match[4].split(), options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[Mirror]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        uris, suites, components = (fields.get(name, "").split() for name in ("uris", "suites", "components"))
        yield from _mirrors(uris, suites, components, fields.get("signed-by", ""))


def _fields(stanza: str) -> dict[str, str]:
    """The fields of one stanza, names in lower case. Continuation lines keep their order; a lone dot is an empty line."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + ("" if line.strip() == "." else line.strip())
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return {name: value.strip() for name, value in fields.items()}


def _mirrors(uris: Iterable[str], suites: Iterable[str], components: Iterable[str], signed_by: str) -> Iterator[Mirror]:
    if "main" not in components:
        return
    known = [match for suite in suites if (match := _SUITE.match(suite))]
    if not known:
        return
    security = all(match[2] in ("-security", "/updates") for match in known)
    for uri in uris:
        if uri.startswith(("http://", "https://")):
            yield Mirror(uri.rstrip("/"), signed_by, security)
