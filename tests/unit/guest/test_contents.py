"""What is in images: differences between two, and the bill of materials. The images are small ones of erofs-utils."""

import hashlib
import json
import marshal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from innkeeper.cli import image as command
from innkeeper.errors import InnkeeperError
from innkeeper.guest import contents, diff, frozen, sbom, spdx
from innkeeper.guest.erofs_inodes import read_inodes
from tests.needs import needs

MODULES = {"agent": b"one", "agent.loop": b"two"}


def program(modules: dict[str, bytes]) -> bytes:
    """A frozen program as PyInstaller writes it: the loader, an archive with the modules' archive in it, the record at the end."""
    inner, table = b"", []
    for name, code in modules.items():
        table.append((name, (0, 12 + len(inner), len(code))))
        inner += code
    archive = b"PYZ\0" + bytes(4) + struct.pack("!I", 12 + len(inner)) + inner + marshal.dumps(table)
    entry = struct.pack("!IIIIBc", 18 + 16, 5, len(archive), len(archive), 0, b"z") + b"PYZ.pyz".ljust(16, b"\0")
    body = b"other" + archive + entry
    length = len(body) + 88
    cookie = struct.pack("!8sIIII64s", b"MEI\014\013\012\013\016", length, 5 + len(archive), len(entry), 313, b"libpython3.13.so.1.0")
    return b"\x7fELF" + body + cookie


def built(
    folder: Path,
    files: dict[str, bytes],
    *,
    config: str = "",
    versions: dict[str, str] | None = None,
    special: dict[str, int] | None = None,
) -> Path:
    """An output folder of `build` with these files in its root."""
    tree = folder / "tree"
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
        (tree / name).chmod(0o644)
    for name, mode in (special or {}).items():
        (tree / name).chmod(mode)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "closed").mkdir(mode=0o555)
    subprocess.run(["mkfs.erofs", "--quiet", "--all-root", folder / "rootfs.erofs", tree], check=True)
    if config:
        (folder / "config").write_text(config)
    if versions is not None:
        inputs = [{"type": "debian", "name": name, "version": version, "builders": ["agent"]} for name, version in versions.items()]
        (folder / "manifest.json").write_text(json.dumps({"inputs": inputs}))
    return folder


def test_the_modules_of_a_frozen_program(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(program(MODULES))
    assert list(frozen.modules(tmp_path / "agent")) == ["agent", "agent.loop"]
    for content in (b"", b"MEI\014\013\012\013\016", program({})[:-40], b"\x7fELF"):
        (tmp_path / "agent").write_bytes(content)
        with pytest.raises(InnkeeperError, match="not a frozen program"):
            frozen.modules(tmp_path / "agent")


@needs("mkfs.erofs")
def test_differences_of_two_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = contents.PROGRAMS["agent"]
    files = {agent: program(MODULES), "etc/hosts": b"a", "etc/gone": b"", "etc/same": b"s"}
    old = built(tmp_path / "old", files, config="CONFIG_A=y\nCONFIG_B=y\n", versions={"zlib1g": "1", "same": "1"})
    files = {agent: program({**MODULES, "agent.new": b"3"}), "etc/hosts": b"bb", "etc/same": b"s", "usr/bin/new": b"n"}
    new = built(tmp_path / "new", files, config="CONFIG_A=8\nCONFIG_C=y\n", versions={"zlib1g": "2", "same": "1"})
    assert command.diff(old, new) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "files: 2 added, 1 removed, 2 changed",
        "packages: 1 changed",
        "kernel: 1 added, 1 removed, 1 changed",
        "modules: 1 added",
    ]
    assert {"  ~ etc/hosts  size 1 -> 2", "  ~ debian zlib1g  1 (agent) -> 2 (agent)", "  ~ A  y -> 8", "  + agent: agent.new"} <= set(
        lines
    )
    assert "  + usr/bin/new  1 bytes, mode 0644" in lines and "  - etc/gone  0 bytes, mode 0644" in lines
    assert command.diff(old, new, json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["files"]["changed"]["etc/hosts"]["new"]["size"] == 2
    assert list(document["files"]["added"]) == ["usr/bin", "usr/bin/new"]


@needs("mkfs.erofs")
def test_the_same_image_and_what_only_one_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = built(tmp_path / "old", {"etc/hosts": b"a"}, config="CONFIG_A=y\n")
    assert command.diff(old, old / "rootfs.erofs") == 0
    told = capsys.readouterr().out.splitlines()
    assert told == ["files: the same", "packages: not known of both images", "kernel: not known of both images", "modules: the same"]
    with pytest.raises(InnkeeperError, match="no root image there"):
        diff.read(tmp_path)
    (tmp_path / "text").write_text("no image")
    with pytest.raises(InnkeeperError, match="cannot be unpacked"):
        diff.read(tmp_path / "text")


@needs("mkfs.erofs")
def test_modes_owners_and_links_are_those_of_the_image(tmp_path: Path) -> None:
    """Also setuid, which fsck.erofs drops, and in a folder of more than one block."""
    many = {f"many/{'x' * 100}{number}": b"m" for number in range(100)}
    image = built(tmp_path, {"etc/hosts": b"a", **many}, special={"etc/hosts": 0o4711}) / "rootfs.erofs"
    with contents.unpacked(image) as folder:
        found = contents.entries(image, folder)
        assert set(found) == {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert found["bin"].target == "usr/bin" and found["closed"].mode == "0555"
    assert (found["etc/hosts"].mode, found["etc/hosts"].owner, found["etc/hosts"].size) == ("4711", "0:0", 1)
    (tmp_path / "short").write_bytes(bytes(1100))
    with pytest.raises(InnkeeperError, match="not an erofs image"):
        read_inodes(tmp_path / "short")


def materials() -> dict[str, Any]:
    """A bill of materials of four files, one of them a program with two modules."""
    described = {"size": 1, "sha256": "a" * 64, "mode": "0644", "owner": "0:0"}
    origins: dict[str, Any] = {
        "usr/lib/libc.so.6": {"type": "debian", "name": "libc6", "path": "/usr/lib/libc.so.6"},
        "etc/hosts": {"type": "source", "path": "rootfs/skeleton/etc/hosts"},
        "etc/motd": {"type": "guest.toml", "path": "/etc/motd"},
        contents.PROGRAMS["agent"]: {"type": "source", "path": "agent/__main__.py"},
        "etc/stray": None,
    }
    modules = {"agent": {"agent.loop": {"type": "source", "path": "agent/loop/__init__.py"}, "stray": None}}
    debian = {"version": "1:2+b1", "architecture": "amd64", "licenses": ["GPL-2"], "source": "glibc", "source_version": "1:2"}
    found = {"files": {name: {**described, "origin": origin} for name, origin in origins.items()}, "modules": modules}
    packages = [{"name": "libc6", "version": "1:2+b1", "sha256": "b" * 64}]
    kernel = {"bzImage": (5, "c" * 64)}
    facts = {"from": "ours", "version": "6.12", "source": "linux-source-6.12 6.12-1"}
    sources = [{"name": name, "version": "6.12-1", "architecture": "all"} for name in ("linux-source-6.12", "gcc")]
    return sbom.document({**found, "packages": {"debian libc6": debian}}, kernel, facts, packages, sources, "d" * 64)


def test_a_bill_of_materials() -> None:
    made = materials()
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.6", 1)
    assert made == materials(), "it has no time and no random number"
    by_name = {component["name"]: component for component in made["components"]}
    libc = by_name["libc6"]
    assert libc["purl"] == "pkg:deb/debian/libc6@1%3A2%2Bb1?arch=amd64&distro=trixie"
    assert libc["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}] and libc["licenses"] == [{"license": {"name": "GPL-2"}}]
    assert by_name["linux-source-6.12"]["purl"].startswith("pkg:deb/debian/linux-source-6.12@6.12-1?") and "gcc" not in by_name
    assert sbom.files(made) == {
        "/usr/lib/libc.so.6": "libc6",
        "/etc/hosts": "innkeeper",
        "/etc/motd": "guest.toml",
        "/usr/lib/innkeeper/agent": "innkeeper",
        "/etc/stray": "",
        "bzImage": "linux",
    }
    (agent,) = (one for one in by_name["innkeeper"]["components"] if one["name"] == "/usr/lib/innkeeper/agent")
    assert [(one["name"], "version" in one) for one in agent["components"]] == [("agent.loop", True), ("stray", False)]
    references = [component["bom-ref"] for component in walk(made["components"])]
    assert len(references) == len(set(references))


def walk(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for component in components for found in (component, *walk(component.get("components", [])))]


def test_the_stub_of_a_unified_kernel_image_is_a_component() -> None:
    stub = [{"name": "systemd-boot-efi", "version": "257", "architecture": "amd64", "sha256": "e" * 64}]
    origins: dict[str, Any] = {"files": {}, "modules": {}, "packages": {}}
    made = sbom.document(origins, {"bzImage": (5, "c" * 64)}, {"from": "ours"}, [], [], "d" * 64, {"innkeeper.efi": (7, "f" * 64)}, stub)
    by_name = {component["name"]: component for component in made["components"]}
    assert by_name["systemd-boot-efi"]["hashes"] == [{"alg": "SHA-256", "content": "e" * 64}]
    assert [file["name"] for file in by_name["linux"]["components"]] == ["bzImage", "innkeeper.efi"]


def test_the_same_in_spdx_is_valid_and_has_every_file() -> None:
    made = materials()
    document = spdx.document(made, {name: hashlib.sha1(name.encode()).hexdigest() for name in sbom.files(made)})
    parser = JsonLikeDictParser()  # type: ignore[no-untyped-call]
    assert [str(fault) for fault in validate_full_spdx_document(parser.parse(document), "SPDX-2.3")] == []
    assert spdx.files(document) == {name if name.startswith("/") else f"/{name}": origin for name, origin in sbom.files(made).items()}
    assert spdx.files(document)["/etc/stray"] == ""
    libc = next(one for one in document["packages"] if one["name"] == "libc6")
    assert libc["externalRefs"][0]["referenceLocator"] == "pkg:deb/debian/libc6@1%3A2%2Bb1?arch=amd64&distro=trixie"
    assert libc["licenseComments"] == "named by the package: GPL-2"
    agent = next(one["SPDXID"] for one in document["files"] if one["fileName"] == "./usr/lib/innkeeper/agent")
    generated = [one for one in document["relationships"] if one["relationshipType"] == "GENERATED_FROM"]
    assert {one["spdxElementId"] for one in generated} == {agent}
