"""The provenance of a build, its signature, and the trace of its steps."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from innkeeper import progress
from innkeeper.cli import build
from innkeeper.errors import InnkeeperError
from innkeeper.guest import provenance, trace
from tests.needs import needs

MANIFEST = {
    "variant": "release",
    "kernel": {"from": "ours"},
    "steps": [{"name": "rootfs", "id": "1" * 64, "inputs": {}}],
    "inputs": [
        {"type": "debian", "name": "libstdc++6", "version": "1:14+b1", "architecture": "amd64", "sha256": "a" * 64, "builders": ["agent"]},
        {"type": "python", "name": "protobuf", "version": "7", "sha256": ["b" * 64, "c" * 64]},
    ],
    "outputs": {"rootfs.erofs": {"size": 1, "sha256": "d" * 64}},
}


def written(folder: Path, key: Path | None = None) -> dict[str, Any]:
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(MANIFEST))
    provenance.write(manifest, folder / "provenance.json", key)
    document: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return document


def test_the_statement_names_results_and_what_they_are_made_of(tmp_path: Path) -> None:
    made = written(tmp_path)
    assert (made["_type"], made["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    assert made["subject"] == [{"name": "rootfs.erofs", "digest": {"sha256": "d" * 64}}]
    definition = made["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"variant": "release", "kernel": {"from": "ours"}}
    assert definition["internalParameters"] == {"steps": {"rootfs": "1" * 64}}
    assert [(entry["uri"], entry["digest"]["sha256"][0]) for entry in definition["resolvedDependencies"]] == [
        ("pkg:deb/debian/libstdc%2B%2B6@1%3A14%2Bb1?arch=amd64", "a"),
        ("pkg:pypi/protobuf@7", "b"),
        ("pkg:pypi/protobuf@7", "c"),
    ]


@needs("openssl")
@pytest.mark.parametrize("kind", [("ED25519",), ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"), ("RSA",)])
def test_a_signed_statement_is_verified_by_the_public_key(tmp_path: Path, kind: tuple[str, ...]) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", *kind, "-out", key], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    made = written(tmp_path, key)
    payload = base64.b64decode(made["payload"])
    assert json.loads(payload) == written(tmp_path)
    signed, signature = tmp_path / "signed", tmp_path / "signature"
    signature.write_bytes(base64.b64decode(made["signatures"][0]["sig"]))
    verify: list[str | Path] = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", signed, "-sigfile", signature]
    kind_of_payload = made["payloadType"]
    for content, status in ((payload, 0), (payload + b" ", 1)):
        signed.write_bytes(f"DSSEv1 {len(kind_of_payload)} {kind_of_payload} {len(content)} ".encode() + content)
        assert subprocess.run(verify, capture_output=True, check=False).returncode == status


@needs("openssl")
def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(InnkeeperError, match="openssl pkey failed"):
        written(tmp_path, tmp_path / "key.pem")
    with pytest.raises(InnkeeperError, match="--sign-key needs --provenance"):
        build.build(sign_key=tmp_path / "key.pem")
    with pytest.raises(InnkeeperError, match=r"--sign-key .*absent: no such file"):
        build.build(sign_key=tmp_path / "absent", provenance=tmp_path / "provenance.json")


def test_the_trace_has_the_steps_with_those_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_finished", [])
    with progress.step("outer"):
        with pytest.raises(ValueError, match="no"), progress.step("inner"):
            raise ValueError("no")
    trace.write(tmp_path / "trace.json")
    outer, inner = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert (outer["name"], outer["ph"], outer["ts"], outer["args"]) == ("outer", "X", 0, {"failed": False})
    assert (inner["name"], inner["args"]) == ("inner", {"failed": True})
    assert inner["ts"] + inner["dur"] <= outer["dur"] + 1
    assert inner["tid"] == outer["tid"]
