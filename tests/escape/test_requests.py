"""What a caller may put into a request: annotations, hooks, storages, files to copy, lists and texts without end."""

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.container.spec.document import parse_spec
from agent.errors import Refused
from innkeeper.client import RpcError
from innkeeper.kata import Layout
from innkeeper.wire.pb import agent_pb2
from tests.escape.documents import ROOT, Document
from tests.escape.target import SHARED, Target

pytestmark = [pytest.mark.root, pytest.mark.needs("root", "cgroup2")]


def refused(target: Target, change: Callable[[Document], object], match: str) -> None:
    """The changed default document is refused by the name of its field."""
    with pytest.raises(RpcError, match=match):
        target.attack(ROOT, "identity", change=change)


@pytest.mark.escape("E37")
def test_annotations_steer_nothing(target: Target) -> None:
    """Those that a hypervisor, a shim or another runtime would act on: the container is the same with them."""
    hostile = {
        "io.katacontainers.config.hypervisor.path": "/evil",
        "io.katacontainers.config.hypervisor.virtio_fs_daemon": "/evil",
        "io.katacontainers.config.hypervisor.kernel_params": "init=/evil",
        "io.katacontainers.config.agent.policy": "allow",
        "io.katacontainers.container.init": "1",
        "run.oci.handler": "krun",
        "run.oci.keep_original_groups": "1",
        "run.oci.seccomp.receiver": "/run/evil.sock",
        "run.oci.hooks.stderr": f"{target.inner(target.canary)}/open/made",
        "org.systemd.property.DeviceAllow": "['*', 'rwm']",
        "innkeeper.seccomp": "unconfined",
    }
    verbs = ("identity", "+", "env", "+", "devices", "/tmp", "c:1:11", "+", "sockets", "38")
    plain = target.attack(ROOT, *verbs)
    annotated = target.attack(ROOT, *verbs, change=lambda doc: doc.update(annotations=hostile))
    assert annotated.answers == plain.answers


def tables(value: object) -> Iterator[dict[str, Any]]:
    """Each table of a TOML document, at whatever depth."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from tables(inner)


@pytest.mark.escape("E61")
def test_what_a_node_is_given_lets_no_annotation_steer_it(tmp_path: Path) -> None:
    """In all that `kata install` writes, also in its comments: no key enables one, and containerd passes on the policy alone."""
    plan = Layout.of(tmp_path / "prefix", tmp_path / "qemu", tmp_path / "virtiofsd", tmp_path / "clh")
    texts = {path.name: text for path, text in plan.texts('kernel_verity_params = "x"\n').items()}
    assert [name for name, text in texts.items() if "enable_annotations" in text] == []
    written = [table for name, text in texts.items() if name.endswith(".toml") for table in tables(tomllib.loads(text))]
    forwarded = [table["pod_annotations"] for table in written if "pod_annotations" in table]
    assert forwarded == [["io.katacontainers.config.agent.policy"]] * len(plan.configurations)
    assert not [table for table in written if "container_annotations" in table]
    arguments = [table["virtio_fs_extra_args"] for table in written if "virtio_fs_extra_args" in table]
    assert arguments == [["--thread-pool-size=1"]] * len(plan.configurations)
    assert not [table for table in written if table.get("debug_console_enabled") or table.get("kernel_params")]


@pytest.mark.escape("E35")
def test_storages_of_a_refused_container_go(target: Target) -> None:
    """Those before one that cannot be had, and all of them when the container itself is refused. The fixture sees mounts and groups."""
    place = f"{SHARED}/containers/storages"
    good = [agent_pb2.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=f"{place}/{n}") for n in range(3)]
    doc = target.document("hold")
    for bad, match in (
        (agent_pb2.Storage(driver="no-such", mount_point=f"{place}/x"), "no-such"),
        (agent_pb2.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=f"{place}/../../../x"), "mount_point"),
        (agent_pb2.Storage(driver="ephemeral", source="tmpfs", fstype="tmpfs", mount_point=f"{place}/x", options=["size=x"]), "size"),
        (agent_pb2.Storage(driver="bind", source="/no/such", mount_point=f"{place}/x", options=["bind"]), "no/such|No such"),
    ):
        with pytest.raises(RpcError, match=match):
            target.create(doc, storages=[*good, bad])
    doc["process"]["args"] = ["/missing"]
    with pytest.raises(RpcError, match="missing"):
        target.create(doc, storages=good)


LONG = "x" * 70_000


@pytest.mark.escape("E41")
@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("uidMappings", lambda doc: doc["linux"].update(uidMappings=[{"containerID": i, "hostID": i, "size": 1} for i in range(20_000)])),
        ("options", lambda doc: doc["mounts"][0]["options"].extend(["nosuid"] * 20_000)),
        ("destination", lambda doc: doc["mounts"][0].update(destination=f"/{LONG}")),
        ("source", lambda doc: doc["mounts"].append({"destination": "/volume", "type": "bind", "source": f"/{LONG}", "options": ["bind"]})),
        ("hostname", lambda doc: doc.update(hostname=LONG)),
        ("cwd", lambda doc: doc["process"].update(cwd=f"/{LONG}")),
        ("maskedPaths", lambda doc: doc["linux"].update(maskedPaths=[f"/{LONG}"])),
        ("cgroupsPath", lambda doc: doc["linux"].update(cgroupsPath=LONG)),
        ("root", lambda doc: doc["root"].update(path=f"/{LONG}")),
        ("namespaces", lambda doc: doc["linux"]["namespaces"].extend([{"type": "pid"}] * 20_000)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lists_and_texts_have_bounds(target: Target, field: str, change: Callable[[Document], object]) -> None:
    def with_users(doc: Document) -> None:
        if field == "uidMappings":
            doc["linux"]["namespaces"].append({"type": "user"})
        change(doc)

    refused(target, with_users, field)


@pytest.mark.escape("E41")
def test_a_hundred_thousand_mappings_are_refused() -> None:
    mappings = [{"containerID": number, "hostID": number, "size": 1} for number in range(100_000)]
    linux = {"namespaces": [{"type": "mount"}, {"type": "user"}], "uidMappings": mappings, "gidMappings": mappings}
    with pytest.raises(Refused, match="uidMappings"):
        parse_spec({"ociVersion": "1.2.0", "root": {"path": "/r"}, "process": {"args": ["x"]}, "linux": linux})


COPIES = (
    "{0}/../x",
    "/etc/passwd",
    "{0}/a/../../x",
    "{0}",
    "{0}/",
    "{0}//x",
    "{0}/./x",
    "relative",
    "",
    "{0}/a\0b",
    "/run/kata-containers/x",
)


@pytest.mark.escape("E39")
@pytest.mark.parametrize("path", COPIES, ids=range(len(COPIES)))
def test_copied_files_stay_in_their_directory(target: Target, path: str) -> None:
    request = agent_pb2.CopyFileRequest(
        path=path.format(f"{SHARED}/containers"), file_mode=0o100644, dir_mode=0o755, data=b"x", file_size=1
    )
    with pytest.raises(RpcError, match="path"):
        target.agent.copy_file(request)


@pytest.mark.escape("E39")
@pytest.mark.parametrize("destination", ["/", "../../../..", "/run/kata-containers", "canary"])
def test_copied_files_follow_no_link_out_of_their_directory(target: Target, destination: str) -> None:
    """A link first, then a file, a directory and a link through it."""
    place = f"{SHARED}/containers/through{destination.replace('/', '-')}"
    link = f"{target.inner(target.canary)}/open" if destination == "canary" else destination
    target.agent.copy_file(agent_pb2.CopyFileRequest(path=place, file_mode=0o120777, dir_mode=0o755, data=link.encode()))
    for name, mode, data in (("file", 0o100644, b"x"), ("directory", 0o40777, b""), ("link", 0o120777, b"/etc")):
        request = agent_pb2.CopyFileRequest(path=f"{place}/copied-{name}", file_mode=mode, dir_mode=0o755, data=data, file_size=len(data))
        try:
            target.agent.copy_file(request)
        except RpcError as refusal:
            assert not refusal.lost
    assert not (target.canary / "open" / "copied-file").exists()


@pytest.mark.escape("E39")
def test_no_file_is_copied_into_a_containers_root(target: Target) -> None:
    """A link to the root of a container that runs, copied first, then a program through it: what CVE-2026-41326 did to workloads."""
    place = f"{SHARED}/containers/program"
    with target.running(target.document("hold")):
        link = target.inner(target.plain).encode()
        target.agent.copy_file(agent_pb2.CopyFileRequest(path=place, file_mode=0o120777, dir_mode=0o755, data=link))
        request = agent_pb2.CopyFileRequest(path=f"{place}/copied", file_mode=0o100755, dir_mode=0o755, data=b"x", file_size=1)
        try:
            target.agent.copy_file(request)
        except RpcError as refusal:
            assert not refusal.lost
        assert not (target.plain / "copied").exists()


@pytest.mark.escape("E39")
@pytest.mark.parametrize("mode", [0o20666, 0o60666, 0o10666, 0o140777])
def test_no_device_is_copied(target: Target, mode: int) -> None:
    request = agent_pb2.CopyFileRequest(path=f"{SHARED}/containers/device", file_mode=mode, dir_mode=0o755)
    with pytest.raises(RpcError, match="file_mode"):
        target.agent.copy_file(request)


@pytest.mark.escape("E34")
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize("listed", [None, ["OF_THE=hook"]], ids=["no environment", "its own"])
def test_hooks_do_not_get_the_containers_environment(target: Target, kind: str, listed: list[str] | None) -> None:
    """What the container's process asks of a loader is no business of a program that runs outside. A failing hook's output is quoted."""
    hook: dict[str, object] = {"path": target.inner(target.hook), "args": ["hook", "env", "+", "status", "Name", "+", "walk-up"]}
    if listed is not None:
        hook["env"] = listed

    def change(doc: Document) -> None:
        doc["process"]["env"] += ["LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "PATH=/evil"]
        doc["hooks"] = {kind: [hook]}

    with pytest.raises(RpcError) as caught:
        target.attack(ROOT, "identity", change=change)
    said = caught.value.message
    assert "Name" in said, "the hook has not run"
    assert "evil" not in said
    assert "KATA_AGENT" not in said and "PYTHON" not in said
    assert ("OF_THE=hook" in said) == (listed is not None)
