"""What `--security-opt apparmor=` and `label=` put into the specification, for each module that a guest may run."""

from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.image.block_device import Image
from innkeeper.image.config import ImageConfig
from innkeeper.image.run_options import RunOptions, Volume
from innkeeper.image.run_plan import plan_run
from innkeeper.image.security_opt import CATEGORIES, categories, selinux_labels
from innkeeper.image.spec import build_spec

ID = "0123456789abcdef"
LEVEL = f"s0:{','.join(categories(ID))}"


def labels(**options: Any) -> dict[str, Any]:
    image = Image("t", "", ImageConfig(), Path("x"), None, None)
    document: Any = build_spec(image, RunOptions(args=["t"], **options), container_id=ID, root_path="/r", environ={})
    found = {
        "profile": document["process"].get("apparmorProfile"),
        "process": document["process"].get("selinuxLabel"),
        "mounts": document["linux"].get("mountLabel"),
    }
    return {name: value for name, value in found.items() if value is not None}


SELINUX = {"process": f"system_u:system_r:container_t:{LEVEL}", "mounts": f"system_u:object_r:container_file_t:{LEVEL}"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"mac": "apparmor"}, {"profile": "innkeeper-default"}),
        ({"mac": "apparmor", "apparmor": "unconfined"}, {"profile": "unconfined"}),
        ({"mac": "apparmor", "apparmor": "mine"}, {"profile": "mine"}),
        ({"mac": "apparmor", "label": ["disable"]}, {"profile": "innkeeper-default"}),
        ({"mac": "apparmor", "label": ["type:container_t"]}, {"profile": "innkeeper-default", **SELINUX}),
        ({"mac": "selinux"}, SELINUX),
        ({"mac": "selinux", "apparmor": "mine"}, {"profile": "mine", **SELINUX}),
        ({"mac": "selinux", "label": ["disable"]}, {}),
        (
            {"mac": "selinux", "label": ["user:u", "role:r", "type:t", "level:s0:c1", "filetype:f"]},
            {"process": "u:r:t:s0:c1", "mounts": "u:object_r:f:s0:c1"},
        ),
    ],
)
def test_what_is_asked(options: dict[str, Any], expected: dict[str, str]) -> None:
    assert labels(**options) == expected


def test_what_is_mounted_for_a_labelled_container_bears_its_label(tmp_path: Path) -> None:
    image = Image("t", "", ImageConfig(volumes=("/data",)), Path("x"), None, None)

    def contexts(**options: Any) -> dict[str, list[str]]:
        asked = RunOptions(args=["t"], volumes=[Volume(tmp_path, "/v")], read_only=True, **options)
        return {entry.mount_point: [word for word in entry.options if "context" in word] for entry in plan_run(image, asked, ID).storages}

    labelled = {place for place, words in contexts(mac="selinux").items() if words == [f'context="{SELINUX["mounts"]}"']}
    base = "/run/kata-containers"
    assert labelled == {f"{base}/{ID}/rootfs", f"{base}/sandbox/volumes/0", f"{base}/sandbox/image-volumes"}
    assert not any(contexts(mac="apparmor").values())


@pytest.mark.parametrize("asked", [["no:such"], ["type"], ["type:"], ["disable", "type:x"], ["nested"]])
def test_labels_that_mean_nothing_are_refused(asked: list[str]) -> None:
    with pytest.raises(InnkeeperError, match="--security-opt label="):
        selinux_labels(RunOptions(label=asked), ID)


def test_a_containers_categories_are_two_of_those_there_are() -> None:
    pairs = [categories(f"container {number}") for number in range(2000)]
    numbers = [[int(name.removeprefix("c")) for name in pair] for pair in pairs]
    assert all(0 <= first < second < CATEGORIES for first, second in numbers)
    assert len({tuple(pair) for pair in pairs}) > 1990
    assert categories("container 7") == pairs[7]
