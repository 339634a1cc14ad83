"""The provenance of a build: an in-toto statement with SLSA's predicate, which may be signed.

    provenance.write(manifest, Path("provenance.json"), key=None)

It says the same as the manifest, in a form that other tools read. With a key it is the payload of a
DSSE envelope (secure-systems-lab/dsse), signed by openssl(1): no service is needed. Like the
manifest it depends only on the inputs: it has no time.
"""

import base64
import hashlib
import json
import subprocess
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper import __version__, files, programs
from innkeeper.errors import InnkeeperError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUILD_TYPE = "urn:innkeeper:guest:v1"
"""Names what the parameters mean: those of docs/manifest.md."""


def write(manifest: Path, file: Path, key: Path | None = None) -> None:
    """Write the statement for a manifest, in an envelope if there is a private key to sign it with.

    Raises InnkeeperError.
    """
    made = statement(json.loads(manifest.read_text()))
    document = envelope(json.dumps(made, sort_keys=True).encode(), key) if key else made
    with files.replaced(file) as fresh:
        fresh.write_text(json.dumps(document, indent=1) + "\n")
        fresh.chmod(0o644)


def statement(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statement: the results, what they were made of, and by which steps."""
    subjects = [{"name": name, "digest": {"sha256": entry["sha256"]}} for name, entry in manifest["outputs"].items()]
    parameters = {name: manifest[name] for name in ("variant", "kernel", "parameters") if name in manifest}
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {"steps": {step["name"]: step["id"] for step in manifest["steps"]}},
                "resolvedDependencies": [found for entry in manifest["inputs"] for found in _dependencies(entry)],
            },
            "runDetails": {"builder": {"id": "urn:innkeeper:build", "version": {"innkeeper": __version__}}},
        },
    }


def envelope(payload: bytes, key: Path) -> dict[str, Any]:
    """Return a DSSE envelope with the signature of the private key in a PEM file.

    Raises InnkeeperError.
    """
    public = _openssl("pkey", "-in", str(key), "-pubout", "-outform", "DER")
    with tempfile.NamedTemporaryFile(prefix="innkeeper-") as signed:
        signed.write(encoded(payload))
        signed.flush()
        signature = _openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(key), "-in", signed.name)
    entry = {"keyid": hashlib.sha256(public).hexdigest(), "sig": base64.b64encode(signature).decode()}
    return {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [entry]}


def encoded(payload: bytes) -> bytes:
    """Return the bytes that are signed: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _dependencies(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an input of the manifest as resources, one for each archive.

    Of a wheel the lock file allows several.
    """
    if entry["type"] == "debian":
        name, version = (urllib.parse.quote(entry[key], safe="~") for key in ("name", "version"))
        uri, hashes = f"pkg:deb/debian/{name}@{version}?arch={entry['architecture']}", [entry.get("sha256")]
    else:
        uri, hashes = f"pkg:pypi/{entry['name']}@{entry['version']}", entry["sha256"]
    return [{"uri": uri, **({"digest": {"sha256": one}} if one else {})} for one in hashes]


def _openssl(*arguments: str) -> bytes:
    done = subprocess.run([programs.require("openssl"), *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        reason = next(iter(done.stderr.decode(errors="replace").strip().splitlines()), "no reason given")
        raise InnkeeperError(f"openssl {arguments[0]} failed: {reason}", hint="a private key in PEM is needed")
    return done.stdout
