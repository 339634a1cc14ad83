"""Mounts of the host in a VM without a shared folder: what is copied, what is the guest's, what is refused."""

from pathlib import Path

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.shim import copied_volumes, copies, spec
from tests.unit.shim.test_spec import document

READ, WRITTEN = ["rbind", "rprivate", "ro"], ["rbind", "rprivate", "rw"]


def test_what_is_copied(tmp_path: Path) -> None:
    hosts, folder = tmp_path / "hosts", tmp_path / "folder"
    hosts.touch()
    folder.mkdir()
    made = document()
    made["mounts"] += [
        {"destination": "/etc/hosts", "type": "bind", "source": str(hosts), "options": WRITTEN},
        {"destination": "/data", "type": "bind", "source": str(folder), "options": [*READ[:2], "rro"]},
    ]
    plan = spec.plan(made, "c-one", {}, shares=False)
    assert (plan.copies, plan.binds, plan.log) == ((hosts, folder), (), None)
    assert [(mount["source"], mount["options"][-1]) for mount in plan.document["mounts"][1:]] == [
        (copies.place(hosts), "rw"),
        (copies.place(folder), "ro"),
    ]


def test_an_empty_dir_is_the_guests(tmp_path: Path) -> None:
    folder = tmp_path / "pods/u/volumes/kubernetes.io~empty-dir/cache"
    (folder / "a/b").mkdir(parents=True)
    folder.chmod(0o1777)
    for inside in ("", "/a/b"):
        carried = copied_volumes.carry(Path(f"{folder}{inside}"), "/cache", WRITTEN)
        assert carried.source == f"/run/kata-containers/sandbox/ephemeral/cache{inside}"
        whole, *below = carried.storages
        assert (whole.driver, whole.options[0], [storage.driver for storage in below]) == (
            "ephemeral",
            "mode=1777",
            ["local"] * bool(inside),
        )


def test_the_file_for_the_last_message(tmp_path: Path) -> None:
    log = tmp_path / "pods/u/containers/name/0123"
    log.parent.mkdir(parents=True)
    log.touch()
    made = document()
    made["mounts"].append({"destination": "/var/message", "type": "bind", "source": str(log), "options": WRITTEN})
    plan = spec.plan(made, "c-one", {}, shares=False)
    assert plan.log == log
    assert plan.document["annotations"] == {"a": "b", "io.kubernetes.container.terminationMessagePath": "/var/message"}
    copied_volumes.write_message(log, "text")
    assert log.read_text() == "text"
    log.rename(tmp_path / "elsewhere")
    log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        copied_volumes.write_message(log, "other")


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for source in (tmp_path, tmp_path / "file"):
        with pytest.raises(InnkeeperError, match=f"mounts: /data: what a container writes to {source} would be lost"):
            copied_volumes.carry(source, "/data", WRITTEN)
    with pytest.raises(InnkeeperError, match="HostToContainer"):
        copied_volumes.carry(tmp_path, "/data", ["rbind", "rslave", "ro"])
