"""A Kubernetes for tests: its programs, built once from Go modules. One binary is all of them but etcd, each by a link of its name."""

from pathlib import Path

from tests import go_helpers
from tests.go_helpers import Variables

FOLDER = Path(__file__).parent
VERSION = "1.34.3"
MINUTES = 8
"""About what the first build takes on two processors."""
NAMES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
COMPONENT, CLIENT = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
VARIABLES: Variables = {
    f"{COMPONENT}.gitVersion": f"v{VERSION}",
    f"{COMPONENT}.gitMajor": VERSION.split(".")[0],
    f"{COMPONENT}.gitMinor": VERSION.split(".")[1],
    f"{CLIENT}.gitVersion": f"v{VERSION}",
}
"""What Kubernetes' own build sets. kubectl and the API server compare their versions."""


def kube() -> Path:
    """Return the one binary, building it if it is not in the cache."""
    return go_helpers.build("test-kubernetes", FOLDER / "kube", ".", variables=VARIABLES, background=True) / "kube"


def etcd() -> Path:
    """Return etcd's server, building it if it is not in the cache."""
    return go_helpers.build("test-etcd", FOLDER / "etcd", ".", background=True) / "etcd"


def why_missing() -> str | None:
    """Return why a run of all tests leaves these out, or None if they are in the cache."""
    kube_made = go_helpers.is_built("test-kubernetes", FOLDER / "kube", variables=VARIABLES)
    if kube_made and go_helpers.is_built("test-etcd", FOLDER / "etcd"):
        return None
    return f"Kubernetes {VERSION} is not in the cache: ./build.py test tests/kubernetes builds it, in about {MINUTES} minutes"
