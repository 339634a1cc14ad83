"""Which guest `run` boots, what its kernel is told, and which module of mandatory access control it then runs."""

import pytest

from innkeeper.engine import resolve
from innkeeper.errors import InnkeeperError
from innkeeper.guest import Variant


@pytest.mark.parametrize(
    ("chosen", "debug", "guest"),
    [("release", False, "release"), ("release", True, "debug"), ("debug", True, "debug"), ("selinux", False, "selinux")],
)
def test_debug_is_short_for_a_variant(chosen: Variant, debug: bool, guest: str) -> None:
    assert resolve.guest_variant(chosen, debug) == guest


def test_a_guest_has_one_variant() -> None:
    with pytest.raises(InnkeeperError, match="--debug-guest cannot be combined with --guest-variant selinux"):
        resolve.guest_variant("selinux", True)


def test_the_kernels_word_and_the_module_belong_together() -> None:
    told = {guest: (resolve.mandatory_access_control(guest), resolve.kernel_parameters(guest)) for guest in ("release", "debug", "selinux")}
    assert told == {"release": ("apparmor", ()), "debug": ("apparmor", ()), "selinux": ("selinux", ("lsm=landlock,selinux",))}
