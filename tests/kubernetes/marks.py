"""What every test of a cluster needs."""

import pytest

from tests.needs import needs

marks = [
    pytest.mark.root,
    pytest.mark.interop,
    pytest.mark.vm,
    needs("root", "ctr", "runc", "virtiofsd", "setpriv", "nsenter", "unshare", "ip", "busybox", "cni", "mke2fs", "curl", "openssl", "go"),
    needs("module:pyroute2", "kubernetes"),
]
