"""A plan: the ids of steps without making them, and that the default guest is what it was before there was a guest.toml."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from innkeeper import paths
from innkeeper.files import hash_file
from innkeeper.guest import kconfig, plan_report
from innkeeper.guest.builder import SOURCE_DATE_EPOCH, SUITE, Builder
from innkeeper.guest.config import Guest, KernelPart, RootPart
from innkeeper.guest.config_file import read
from innkeeper.guest.freeze import BUILDER_SCRIPTS, PACKAGES
from innkeeper.guest.kernel import _COMPILE, _CONFIGURE, SOURCES, _environment
from innkeeper.guest.pins import Package, Pins, Request
from innkeeper.guest.pipeline import plan_steps
from innkeeper.guest.planning import PlanningStore
from innkeeper.guest.resolve import BASE
from innkeeper.guest.store import JSON, Store, hash_tree, step_hash

BASE_ID = step_hash("builder-base", {"suite": SUITE, "packages": [*BASE]})[:16]
VERSIONS = [{"name": name, "version": "1", "architecture": "amd64"} for name in ("base-files", *SOURCES)]


def parse(text: str, path: Path) -> Guest:
    """Return the guest that `text` describes, once it is written to `path`."""
    path.write_text(text)
    return read([path])


def with_builders(guest: Guest, root: Path) -> dict[str, str | None]:
    """The ids of the guest's steps by name, after its builders were "made" in the store `root`."""
    while True:
        steps = plan_steps(guest, PlanningStore(root, Pins()))
        missing = [step for step in steps if step.name.startswith("builder") and step.id and not step.in_store]
        if not missing:
            return {step.name: step.id for step in steps}
        for step in missing:
            (root / step.folder).mkdir(parents=True)
            (root / step.folder / "packages.json").write_text(json.dumps(VERSIONS))


def test_ids_that_depend_on_a_missing_builder_are_not_known(tmp_path: Path) -> None:
    steps = plan_steps(Guest(), PlanningStore(tmp_path, Pins()))
    assert [step.name for step in steps if step.id] == ["builder-base", "builder", "builder", "builder", "builder"]
    assert {step.name for step in steps if not step.id} >= {"agent", "gateway", "rootfs", "verity", "disk", "initrd", "kernel", "manifest"}
    assert not any(step.in_store for step in steps)
    assert not list(tmp_path.iterdir()), "a plan writes nothing"


def test_with_the_lock_of_the_tree_all_ids_are_known(tmp_path: Path) -> None:
    """But for the manifest's, which has facts from the results of the other steps."""
    steps = plan_steps(Guest(), PlanningStore(tmp_path))
    assert [step.name for step in steps if not step.id] == ["manifest"]
    assert not list(tmp_path.iterdir())


def test_other_pins_make_other_steps(tmp_path: Path) -> None:
    def ids(version: str) -> dict[str, str | None]:
        package = Package("base-files", version, "amd64", "a" * 64, 1, "pool/main/b/b.deb")
        other = Package("apparmor", "1", "amd64", "b" * 64, 1, "pool/main/a/a.deb")
        requests = {Request(SUITE): [package], Request(SUITE, ("apparmor", "secilc")): [other]}
        store = PlanningStore(tmp_path, Pins({request.key: listed for request, listed in requests.items()}))
        return {step.name: step.id for step in plan_steps(Guest(), store) if step.name in ("builder-base", "policy")}

    first, second = ids("1"), ids("2")
    assert None not in first.values() and first == ids("1")
    assert first["builder-base"] != second["builder-base"] and first["policy"] != second["policy"]


def test_the_default_guest_has_the_steps_and_ids_as_without_a_guest_toml(tmp_path: Path) -> None:
    """The inputs are written out here: a new one would change the id of a guest that nobody changed."""
    ids = with_builders(parse("", tmp_path / "guest.toml"), tmp_path)
    assert list(ids) == [
        *("builder-base", "builder", "policy", "python-packages", "gateway", "agent", "rootfs"),
        *("verity", "disk", "initrd", "kernel", "manifest"),
    ]
    project, store = paths.project_root(), Store(tmp_path, Pins())
    rootfs: dict[str, JSON] = {
        "builder": Builder(PACKAGES, store).id,
        "programs": {name: f"{name}-{(ids[name] or '')[:16]}" for name in ("agent", "gateway")},
        "policies": f"policy-{(ids['policy'] or '')[:16]}",
        "rootfs": hash_tree(project / "rootfs", ["layout", "init.c", "skeleton/**/*"]),
        "script": hash_file(BUILDER_SCRIPTS / "assemble.py"),
        "epoch": SOURCE_DATE_EPOCH,
        "variant": "release",
    }
    assert ids["rootfs"] == step_hash("rootfs", rootfs)
    source = next(iter(SOURCES.values()))
    kernel: dict[str, JSON] = {
        "architecture": "x86_64",
        "builder": source.builder(store).id,
        "environment": dict(_environment(source)),
        "fragments": kconfig.as_config(kconfig.read_fragments(project / "kernel-config", "x86_64", source.series)),
        "recipe": [_CONFIGURE, _COMPILE],
        "source": f"{source.package} 1",
    }
    assert ids["kernel"] == step_hash("kernel", kernel)


def test_only_what_a_setting_concerns_gets_another_id(tmp_path: Path) -> None:
    plain = with_builders(Guest(), tmp_path)

    def changed(text: str) -> set[str]:
        ids = with_builders(parse(text, tmp_path / "guest.toml"), tmp_path)
        return {name for name, id in ids.items() if plain.get(name) != id}

    (tmp_path / "more.conf").write_text("# For a test.\nCONFIG_BTRFS_FS=y # volumes\n")
    assert changed('[kernel]\nfragments = ["more.conf"]') == {"kernel"}
    assert changed('[kernel]\nparameters = ["quiet"]\n[budgets]\nroot = 9') == set()
    assert changed('[[files]]\npath = "/etc/motd"\ntext = "hello"') == {"custom-root", "verity", "disk", "initrd"}
    assert changed("[root]\ngateway = false") == {"rootfs", "verity", "disk", "initrd"}
    assert changed('[root]\npackages = ["strace"]') == {"custom-root", "verity", "disk", "initrd"}
    assert changed('variant = "debug"') == {"rootfs", "verity", "disk", "initrd"}


def test_a_kernel_for_another_architecture_is_the_only_step(tmp_path: Path) -> None:
    guest = Guest(architecture="aarch64", outputs=("kernel",))
    ids = {step.name: step.id for step in plan_steps(guest, PlanningStore(tmp_path))}
    assert list(ids) == ["builder-base", "builder", "kernel", "manifest"]
    assert ids["kernel"] not in (None, {step.name: step.id for step in plan_steps(Guest(), PlanningStore(tmp_path))}["kernel"])


def test_a_root_for_another_architecture_has_builders_of_its_own(tmp_path: Path) -> None:
    def ids(guest: Guest) -> dict[str, str | None]:
        return {step.name: step.id for step in plan_steps(guest, PlanningStore(tmp_path))}

    ours, other = ids(Guest()), ids(Guest(architecture="aarch64"))
    assert ours.keys() == other.keys()
    # The policies are no programs: they are compiled on x86-64. The steps after the root differ since it does.
    assert {name for name in ours if ours[name] == other[name]} == {"policy", "manifest"}


def test_outputs_that_are_not_wanted_need_no_steps(tmp_path: Path) -> None:
    guest = Guest(outputs=("root",), root=RootPart(gateway=False), kernel=KernelPart(use="debian"))
    assert {*with_builders(guest, tmp_path)}.isdisjoint({"gateway", "verity", "disk", "initrd", "kernel"})
    assert "verity" in with_builders(replace(guest, outputs=("disk",)), tmp_path)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_printed(tmp_path: Path, as_json: bool) -> None:
    text = plan_report.report(Guest(), as_json=as_json, store=Store(tmp_path, Pins()))
    if as_json:
        document: dict[str, Any] = json.loads(text)
        assert document["configuration"]["kernel"]["use"] == "auto"
        assert document["steps"][0]["name"] == "builder-base" and document["steps"][0]["in_store"] is False
        assert document["steps"][-1] == {"name": "manifest", "id": None, "in_store": False}
    else:
        assert parse(text, tmp_path / "printed.toml") == Guest(), "the steps are comments, so the text is a guest.toml"
        assert f"# builder-base-{BASE_ID}  " in text
        assert text.splitlines()[-1].split(maxsplit=2)[1:] == ["manifest-unknown", plan_report.NOT_KNOWN]
