"""Certificates and kubeconfig files of a cluster, by openssl: an authority, the API server, the administrator, the node."""

import json
import subprocess
from pathlib import Path

from innkeeper import programs

SUBJECTS = {
    "apiserver": "/CN=kube-apiserver",
    "admin": "/O=system:masters/CN=admin",
    "node": "/O=system:nodes/CN=system:node:node",
}
"""Certificate -> whom it is for. Kubernetes takes a user's name from CN and the groups from O."""


def make(folder: Path, address: str, service_address: str) -> None:
    """Write keys and certificates to `folder`: `ca`, those of SUBJECTS, and the key that signs tokens, `tokens.key`."""
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(folder, "req", "-x509", *key, "-days", "3", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt")
    names = f"IP:127.0.0.1,IP:{address},IP:{service_address},DNS:node,DNS:kubernetes,DNS:kubernetes.default.svc"
    (folder / "extensions").write_text(f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n")
    for name, subject in SUBJECTS.items():
        _openssl(folder, "req", *key, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3", "-extfile", "extensions")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *authority, "-out", f"{name}.crt")
    _openssl(folder, "genrsa", "-out", "tokens.key", "2048")


def kubeconfig(folder: Path, name: str, server: str) -> Path:
    """Write the configuration of a client, who is `name` of SUBJECTS."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(folder / "ca.crt")}}],
        "users": [{"name": "u", "user": {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / f"{name}.kubeconfig"
    path.write_text(json.dumps(document))
    return path


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run([str(programs.require("openssl")), *words], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=True)
