"""Measure a Deployment from `kubectl apply` until it is Available, for runc, gVisor and our VMs.

The classes take turns. The Deployment is that of examples/kubernetes, in the cluster of
`tests/kubernetes`. That is built for minutes, so a cache that does not have it is a reason to leave
this out.
"""

import os
from functools import partial
from typing import TYPE_CHECKING

from bench.figures import Section, figure, ratio
from bench.interleave import shuffled
from innkeeper import programs
from innkeeper.errors import InnkeeperError

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Cluster

TITLE = "a Deployment of two pods, from kubectl apply to Available"
RUNC, GVISOR, BOOTED, CLONED = "runc", "gVisor", "our shim, booted", "our shim, from a template"
CLASSES = {RUNC: "native", GVISOR: "gvisor", BOOTED: "sandboxed", CLONED: "template"}
"""Subject -> RuntimeClass.

`template` is made here: the class `sandboxed` with the node's second configuration.
"""
NEEDED = (
    *("qemu-system-x86_64", "virtiofsd", "setpriv", "nsenter", "unshare", "ctr", "runc", "ip", "busybox"),
    *("mke2fs", "curl", "openssl", "go", "skopeo"),
)
GAP_SECONDS = 2.0
"""Seconds to wait after pods, so that the node has forgotten them."""


def unavailable() -> str | None:
    """Return why this cannot be measured here, or None."""
    from tests.kubernetes.programs import why_missing

    if os.geteuid() != 0:
        return "containerd and kubelet need root"
    if missing := [name for name in NEEDED if programs.find(name) is None]:
        return f"{missing[0]} is not on this host"
    return why_missing()


def section(rounds: int) -> Section:
    """Return the section. Raises InnkeeperError."""
    from tests.kubernetes.running import running_cluster

    with running_cluster() as cluster:
        _add_template(cluster)
        subjects = {name: partial(_deploy, cluster, class_name) for name, class_name in CLASSES.items()}
        times = shuffled(subjects, rounds, GAP_SECONDS)
    result = Section(TITLE, note="by turns; the image is on the node; kubelet looks once a second")
    result.figures += [figure(name, "s", values) for name, values in times.items()]
    result.figures.append(ratio(f"{CLONED} / {BOOTED}", times[CLONED], times[BOOTED], None))
    return result


def _add_template(cluster: "Cluster") -> None:
    """Let VMs of `sandboxed` boot, and those of a class of our own start from a template."""
    from tests.kubernetes.running import runtime_class

    node = cluster.node
    node.settings(**node.values, templates=cluster.folder / "none")
    node.make_template()
    cluster.apply(runtime_class(CLASSES[CLONED], CLASSES[CLONED]))


def _deploy(cluster: "Cluster", class_name: str) -> float:
    """Return the seconds that a Deployment takes. Raises InnkeeperError if it does not come up."""
    from tests.kubernetes.running import deploy, undeploy

    try:
        seconds = deploy(cluster, class_name)
    except AssertionError as error:
        raise InnkeeperError(f"a Deployment of the class {class_name} does not become Available: {error}") from error
    undeploy(cluster, class_name)
    return seconds
