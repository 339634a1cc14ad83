"""The unified kernel image's command line, and what is asked of its kernel. `tests/vm/test_uki.py` builds and boots images."""

from pathlib import Path

import pytest

from innkeeper import paths
from innkeeper.cli import build
from innkeeper.errors import InnkeeperError
from innkeeper.guest import uki
from innkeeper.guest.config import Guest
from innkeeper.guest.kconfig import parse_version, read_fragments
from innkeeper.guest.kernel import SOURCES
from innkeeper.guest.pins import Pins
from innkeeper.guest.pipeline import plan_steps
from innkeeper.guest.planning import PlanningStore
from innkeeper.guest.verity import parameters

WITH_UKI = Guest(outputs=("kernel", "disk", "uki"))


def test_the_kernel_opens_a_root_of_one_hash_only() -> None:
    line = uki.command_line(parameters("ab" * 32, 5 * 4096), ("loglevel=7", "a=b c", "d e"))
    salt = parameters("", 0)["salt"]
    assert line.startswith(
        f'dm-mod.create="root,,,ro,0 40 verity 1 /dev/vda1 /dev/vda2 4096 4096 5 0 sha256 {"ab" * 32} {salt}" root=/dev/dm-0'
    )
    assert line.endswith('quiet loglevel=7 a="b c" "d e"')


def test_only_a_guest_with_the_output_has_another_kernel() -> None:
    plain, with_uki = ({step.name: step.id for step in plan_steps(guest, PlanningStore(Path("/none")))} for guest in (Guest(), WITH_UKI))
    assert with_uki["uki"] and "uki" not in plain
    assert plain["kernel"] != with_uki["kernel"]
    assert {name: id for name, id in with_uki.items() if plain.get(name) != id}.keys() <= {"builder", "kernel", "uki", "manifest"}


@pytest.mark.parametrize("source", list(SOURCES))
def test_its_options_fit_those_of_every_kernel(source: str) -> None:
    folder = paths.project_root() / "kernel-config"
    extra = sorted((folder / uki.FRAGMENTS).glob("*.conf"))
    found = read_fragments(folder, "x86_64", parse_version(SOURCES[source].version), extra)
    assert {"EFI", "EFI_STUB"} <= found.keys() - read_fragments(folder, "x86_64", parse_version(SOURCES[source].version)).keys()


def test_variants_have_their_words(tmp_path: Path) -> None:
    from innkeeper.guest.derived import uki_parameters

    assert uki_parameters(Guest(variant="selinux", outputs=WITH_UKI.outputs)) == ("lsm=landlock,selinux",)
    assert uki_parameters(WITH_UKI) == ()


def image(folder: Path, start: bytes, magic: bytes = b"HdrS") -> Path:
    """A file with the fields of a bzImage that are read."""
    content = bytearray(0x400)
    content[:2], content[0x202:0x206], content[0x20E:0x210] = start, magic, (0x100).to_bytes(2, "little")
    content[0x300:0x312] = b"6.12-test (a@b) #1"
    (folder / "bzImage").write_bytes(content)
    return folder / "bzImage"


def test_a_kernel_that_firmware_cannot_start_is_refused(tmp_path: Path) -> None:
    assert uki.release(image(tmp_path, b"MZ")) == "6.12-test"
    with pytest.raises(InnkeeperError, match="built without CONFIG_EFI_STUB"):
        uki.release(image(tmp_path, b"\xea\x05"))
    with pytest.raises(InnkeeperError, match="not a bzImage"):
        uki.release(image(tmp_path, b"MZ", b"none"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uki_key": "key"}, "--uki-key and --uki-certificate need each other"),
        ({"uki_certificate": "key"}, "--uki-key and --uki-certificate need each other"),
        ({"uki_key": "key", "uki_certificate": "none"}, "--uki-certificate .*none: no such file"),
        ({"uki_key": "closed", "uki_certificate": "key"}, "--uki-key .*closed: it has a pass phrase"),
        ({"uki_key": "key", "uki_certificate": "key"}, "the guest has no output uki"),
    ],
)
def test_keys_that_do_not_fit(tmp_path: Path, options: dict[str, str], message: str) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "closed").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(InnkeeperError, match=message):
        build.build(output=tmp_path / "out", **{name: tmp_path / file for name, file in options.items()})


@pytest.mark.parametrize("option", ["golden", "refresh", "provenance", "sign_key", "trace", "push"])
def test_what_is_only_about_a_build_is_refused_with_print(tmp_path: Path, option: str) -> None:
    (tmp_path / "key").touch()
    given = {"provenance": tmp_path / "key", option: tmp_path / "key"} if option == "sign_key" else {option: tmp_path / "key"}
    with pytest.raises(InnkeeperError, match="cannot be used with --print"):
        build.build(output=tmp_path / "out", only_print=True, **given)
    with pytest.raises(InnkeeperError, match="cannot be used with --oci"):
        build.build(output=tmp_path / "out", oci=True, **given)


def test_a_plan_without_pins_writes_nothing(tmp_path: Path) -> None:
    steps = plan_steps(WITH_UKI, PlanningStore(tmp_path, Pins()))
    assert {"uki": None}.items() <= {step.name: step.id for step in steps}.items()
    assert not list(tmp_path.iterdir())
