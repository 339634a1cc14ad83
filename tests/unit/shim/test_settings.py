"""The configuration file: each key described, each fault named."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import handler_options, settings
from innkeeper.shim.settings import Settings

SAMPLE = Path(settings.__file__).with_name("shim.toml")


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """A configuration that is right, whose files are all one."""
    file = tmp_path / "file"
    file.touch()
    return [f'{name} = "{file}"' for name in ("kernel", "root", "qemu", "virtiofsd", "setpriv", "nsenter")]


def load(tmp_path: Path, lines: list[str]) -> Settings:
    path = tmp_path / "shim.toml"
    path.write_text("\n".join(lines))
    return settings.load(str(path))


def test_the_sample_describes_each_key_and_its_default() -> None:
    described = dict(re.findall(r"^(?:# )?(\w+) = (.*)$", SAMPLE.read_text(), flags=re.M))
    known = {field.name: field.default for field in fields(Settings)}
    assert described.keys() == known.keys()
    for name, default in known.items():
        if isinstance(default, (Path, str, int)):
            assert described[name] == (str(default).lower() if isinstance(default, int) else f'"{default}"')


def test_values(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = load(tmp_path, [*lines, 'accelerator = "tcg"', "memory_mib = 300", 'kernel_parameters = ["a", "b=c"]'])
    assert (found.accelerator, found.memory_mib, found.kernel_parameters, found.cpus) == ("tcg", 300, ("a", "b=c"), 1)
    assert found.host.nsenter == tmp_path / "file" and found.shares
    without = [line for line in lines if "virtiofsd" not in line]
    assert not load(tmp_path, [*without, 'virtiofsd = "/no/such"', 'shared_fs = "none"']).shares
    assert load(tmp_path, [*lines, 'accelerator = "tcg"', "memory_mib = 300", 'kernel_parameters = ["a", "b=c"]']) == found
    monkeypatch.setenv(handler_options.VARIABLE, str(tmp_path / "shim.toml"))
    assert settings.load() == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("memory = 1", "unknown key memory"),
        ('memory_mib = "much"', "memory_mib must be a number above 0, not 'much'"),
        ("guest_selinux = 1", "guest_selinux must be true or false, not 1"),
        ("cpus = true", "cpus must be a number above 0, not True"),
        ('initrd = "relative"', "initrd must be an absolute path, not 'relative'"),
        ('initrd = "/no/such"', "initrd: no such file: /no/such"),
        ("kernel_parameters = [1]", "kernel_parameters must be a list of strings, not [1]"),
        ('accelerator = "xen"', "accelerator must be kvm or tcg, not 'xen'"),
        ('shared_fs = "9p"', "shared_fs must be virtio-fs or none, not '9p'"),
        ("machine_type = 1", "machine_type must be a string, not 1"),
        ("=", "Invalid statement (at line 7, column 1)"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, lines: list[str], line: str, message: str) -> None:
    with pytest.raises(InnkeeperError) as caught:
        load(tmp_path, [*lines, line])
    assert caught.value.message == f"{tmp_path}/shim.toml: {message}"


def test_a_file_or_a_key_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match="No such file"):
        settings.load(str(tmp_path / "none.toml"))
    with pytest.raises(InnkeeperError, match="key kernel is missing"):
        load(tmp_path, [])
