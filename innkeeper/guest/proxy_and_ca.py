"""Network settings of this host for a program in the builder: CAs, proxies, package indexes.

They are passed for the duration of one command, and never become part of an image or of a step's
id.
"""

import os
from pathlib import Path

CA_INSIDE = "/run/innkeeper/ca-certificates.crt"
"""Path in the builder at which the host's CA bundle is mounted."""

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_CA_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO")
_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES")


def ca_bundle() -> Path | None:
    """Return the host's bundle of trusted certificates as one file, or None."""
    import ssl  # only a build needs it, and loading it takes as long as ten modules

    paths = ssl.get_default_verify_paths()
    candidates = [os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", paths.cafile, paths.openssl_cafile]
    return next((Path(path) for path in candidates if path and os.path.isfile(path)), None)


def mounts() -> dict[Path, str]:
    """Return the bind mounts that a program in the builder needs to reach the network."""
    bundle = ca_bundle()
    return {bundle.resolve(): f"{CA_INSIDE}:ro"} if bundle else {}


def environment() -> dict[str, str]:
    """Return the variables that a program in the builder needs to reach the network."""
    kept = {name: value for proxy in _PROXIES for name in (proxy, proxy.upper()) if (value := os.environ.get(name))}
    kept |= {name: value for name in _INDEXES if (value := os.environ.get(name))}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("CARGO_REGISTRIES_")}
    if ca_bundle():
        kept |= dict.fromkeys(_CA_VARIABLES, CA_INSIDE)
    return kept
