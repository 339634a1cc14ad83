"""Names of modules that programs outside the tree use go on to mean the same, until NEWS says that they go."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("innkeeper.machine", "innkeeper.vm"),
        ("innkeeper.build", "innkeeper.guest"),
        ("innkeeper.cli.session", "innkeeper.engine.session"),
    ],
)
def test_the_old_name_means_the_new_module(old: str, new: str) -> None:
    before, now = importlib.import_module(old), importlib.import_module(new)
    assert before.__all__
    assert all(getattr(before, name) is getattr(now, name) for name in before.__all__)
