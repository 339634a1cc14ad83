"""The Debian mirror that the builder uses: this host's, else mmdebstrap's default.

Both formats of sources.list(5) are parsed: single lines and deb822 stanzas. Only entries for Debian
itself count: a Debian suite and the component `main`. The address and `Signed-By` are used.
"""

import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from innkeeper import programs
from innkeeper.errors import InnkeeperError

_RELEASES = "buster bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Debian's keys on a host of another distribution (package debian-archive-keyring)."""
_SUITE = re.compile(rf"({'|'.join(_RELEASES.split())})(-updates|-security|-backports|/updates)?\Z")


@dataclass(frozen=True)
class Mirror:
    """A mirror of Debian.

    `signed_by` is the path of a keyring, a key block, or "" for the keys that apt trusts by
    default.
    """

    uri: str
    signed_by: str
    security: bool

    def sources_line(self, suite: str, keyring: str) -> str:
        """Return a sources.list(5) line for `suite` at this mirror.

        `keyring` is the path of the keyring that signs it, or "" for the keys that apt trusts by
        default.
        """
        options = f"[signed-by={keyring}] " if keyring else ""
        return f"deb {options}{self.uri} {suite} main"


def host_mirrors(apt: Path = Path("/etc/apt")) -> list[Mirror]:
    """Return Debian's mirrors in the host's apt configuration: the main one, then the security one.

    Either may be missing. Of each kind only the first network mirror is returned. Entries of Ubuntu
    and other distributions are ignored.
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


def locations(path: str, apt: Path = Path("/etc/apt")) -> list[str]:
    """Return the addresses at which a package may be, by its path in the pool: the likeliest first.

    The archive of security updates has paths of its own. With the next point release its packages
    also get to the main archive.
    """
    mirrors = {mirror.security: mirror.uri for mirror in usable_mirrors(apt)}
    quoted = urllib.parse.quote(path, safe="/:~+")
    found = [f"{mirrors[False]}/{quoted.replace('pool/updates/', 'pool/')}"]
    if path.startswith("pool/updates/") and True in mirrors:
        found.insert(0, f"{mirrors[True]}/{quoted}")
    return found


def usable_mirrors(apt: Path = Path("/etc/apt")) -> list[Mirror]:
    """Return this host's mirrors, or those that mmdebstrap uses by default if apt has none.

    Raises InnkeeperError.
    """
    found = host_mirrors(apt)
    if any(not mirror.security for mirror in found):
        return found
    known = {security: uri for uri, security in _defaults()}
    if False not in known:
        raise InnkeeperError("neither apt's configuration nor mmdebstrap names a mirror of Debian", hint="add one to /etc/apt/sources.list")
    keys = str(_KEYRING) if _KEYRING.exists() else ""
    return [Mirror(uri, keys, security) for security, uri in sorted(known.items())]


def _defaults() -> list[tuple[str, bool]]:
    """Return the addresses in mmdebstrap's text, each with whether it has security updates.

    mmdebstrap is a script. The first ones come last.
    """
    text = Path(programs.require("mmdebstrap")).read_text(errors="replace")
    found = re.findall(r"\b(https?://[\w.-]+/debian(-security)?)\b(?![/-])", text)
    return [(uri, bool(security)) for uri, security in reversed(found)]


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
    """Return the fields of a deb822 stanza, with names in lower case.

    Continuation lines keep their order. A line of a single dot stands for an empty line.
    """
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
