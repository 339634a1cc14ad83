"""Devices of the host's in the guest's specification: nodes, rules, addresses, vendors' files, hooks."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent import loop
from agent.device import lookup, vfio
from agent.device.watch import DeviceWatch
from agent.errors import AgentError, Refused
from agent.pod import cdi, devices, hooks
from agent.pod.devices import DeviceUpdate, GuestDevices
from innkeeper.wire.pb.agent_pb2 import Device

NULL = os.stat("/dev/null").st_rdev
HOST_NODE = {"path": "/dev/disk", "type": "b", "major": 253, "minor": 7, "fileMode": 0o600}
HOST_RULE = {"allow": False, "type": "b", "major": 253, "minor": 7, "access": "w"}


def document(**linux: Any) -> dict[str, Any]:
    return {"process": {"args": ["/bin/true"], "env": ["PATH=/bin", "COLOUR=red"]}, "mounts": [], "linux": linux}


def test_numbers_become_the_guests() -> None:
    """The node's, and those of rules that meant the host's; a rule that allows it comes last."""
    before = document(devices=[HOST_NODE, {"path": "/dev/other", "type": "c", "major": 9, "minor": 9}], resources={"devices": [HOST_RULE]})
    after = devices.apply(before, GuestDevices([DeviceUpdate("/dev/disk", "/dev/null")]))["linux"]
    assert after["devices"][0] == {"path": "/dev/disk", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
    assert after["devices"][1] == {"path": "/dev/other", "type": "c", "major": 9, "minor": 9}
    rewritten, added = after["resources"]["devices"]
    assert rewritten == {**HOST_RULE, "major": 1, "minor": 3}
    assert added == {"allow": True, "type": "b", "major": 1, "minor": 3, "access": "rwm"}
    assert before["linux"]["devices"][0] == HOST_NODE


def test_a_node_may_get_another_name() -> None:
    found = GuestDevices([DeviceUpdate("/dev/vfio/3", "/dev/null", "/dev/null")])
    after = devices.apply(document(devices=[{"path": "/dev/vfio/3", "type": "c", "major": 243, "minor": 0}]), found)
    assert after["linux"]["devices"][0]["path"] == "/dev/null"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(Refused, match="Missing devices in OCI spec: /dev/disk"):
        devices.apply(document(), GuestDevices([DeviceUpdate("/dev/disk", "/dev/null")]))
    twice = document(devices=[HOST_NODE, {**HOST_NODE, "path": "/dev/copy"}])
    with pytest.raises(Refused, match="two devices have the host's number 253:7"):
        devices.apply(twice, GuestDevices([DeviceUpdate("/dev/disk", "/dev/null"), DeviceUpdate("/dev/copy", "/dev/zero")]))


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Device(type="tape", id="1", container_path="/dev/t"), "'tape' is unknown"),
        (Device(type="blk", container_path="/dev/t"), "id or vm_path, are needed"),
        (Device(type="blk", id="02"), "id or vm_path, are needed"),
        (Device(type="blk", id="xx", container_path="/dev/t"), "devices.id: 'xx' is no PCI path"),
        (Device(type="mmioblk", vm_path="/etc/passwd", container_path="/dev/t"), "devices.vm_path: '/etc/passwd' is no device node"),
        (Device(type="scsi", id="1", container_path="/dev/t"), "devices.id: '1' is not ID:LUN"),
        (Device(type="vfio-pci-gk", id="3", container_path="/dev/t"), "no PCI function is given"),
        (Device(type="vfio-pci", id="3", container_path="/dev/t", options=["02:00.0=02"]), "is not HOST-ADDRESS=PCI-PATH"),
        (Device(type="vfio-pci", id="3", container_path="/dev/t", options=["0000:02:00.0=zz"]), "is no PCI path"),
        (Device(type="vfio-ap", id="3", container_path="/dev/t"), "vfio-ap is not served: adjunct processors are s390x's"),
        (Device(type="vfio-ap-cold", id="3", container_path="/dev/t"), "vfio-ap-cold is not served"),
        (Device(type="blk-ccw", id="0.0.0001", container_path="/dev/t"), "blk-ccw is not served"),
        (Device(type="nvdimm", vm_path="/dev/pmem7", container_path="/dev/t"), "/dev/pmem7 did not appear within"),
    ],
)
def test_refused_requests(request_: Device, reason: str, tmp_path: Path) -> None:
    watch = DeviceWatch(hotplug_timeout=0.05, sys_root=str(tmp_path))
    with pytest.raises(AgentError, match=reason):
        loop.run(devices.find([request_], watch))


def test_two_for_one_path_are_refused(machine: DeviceWatch) -> None:
    machine.dev_root = "/dev"
    with pytest.raises(Refused, match="given twice"):
        loop.run(devices.find([Device(type="mmioblk", vm_path="/dev/null", container_path="/dev/t")] * 2, machine))


@pytest.fixture
def machine(tmp_path: Path) -> DeviceWatch:
    """A sysfs of files: a PCI function behind a bridge, with an IOMMU group, and a block device that is /dev/null's number."""
    function = tmp_path / "sys/devices/pci0000:00/0000:00:02.0/0000:01:03.0"
    function.mkdir(parents=True)
    (function.parent / "pci_bus/0000:01").mkdir(parents=True)
    for folder in (
        "bus/pci/devices",
        "bus/pci/drivers/vfio-pci",
        "bus/pci/drivers/e1000",
        "class/vfio/9",
        "kernel/iommu_groups/9",
        "class/block/null",
    ):
        (tmp_path / "sys" / folder).mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:01:03.0").symlink_to(function)
    (function / "iommu_group").symlink_to(tmp_path / "sys/kernel/iommu_groups/9")
    (function / "driver").symlink_to(tmp_path / "sys/bus/pci/drivers/e1000")
    for place in ("class/vfio/9/dev", "class/block/null/dev"):
        (tmp_path / "sys" / place).write_text(f"{os.major(NULL)}:{os.minor(NULL)}\n")
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/9").symlink_to("/dev/null")
    return DeviceWatch(hotplug_timeout=0.2, sys_root=str(tmp_path / "sys"), dev_root=str(tmp_path / "dev"))


def test_vfio_driven_by_the_guest(machine: DeviceWatch) -> None:
    request = Device(type="vfio-pci-gk", id="3", container_path="/dev/vfio/3", options=["0000:3b:02.1=02/03"])
    found = loop.run(devices.find([request], machine))
    assert (found.updates, found.addresses) == ([], {"0000:3b:02.1": "0000:01:03.0"})


def test_vfio_handed_over(machine: DeviceWatch) -> None:
    """The function is taken from its driver and given to vfio-pci; the node is that of the guest's group."""
    request = Device(type="vfio-pci", id="3", container_path="/dev/vfio/3", options=["0000:3b:02.1=02/03"])
    found = loop.run(devices.find([request], machine))
    node = f"{machine.dev_root}/vfio/9"
    assert found.updates == [DeviceUpdate("/dev/vfio/3", node, node)]
    sys_root = Path(machine.sys_root)
    assert (sys_root / "bus/pci/devices/0000:01:03.0/driver_override").read_text() == "vfio-pci"
    assert (sys_root / "bus/pci/drivers/e1000/unbind").read_text() == "0000:01:03.0"
    assert (sys_root / "bus/pci/drivers_probe").read_text() == "0000:01:03.0"
    (sys_root / "bus/pci/drivers/vfio-pci").rmdir()
    with pytest.raises(AgentError, match="this guest's kernel has no vfio-pci"):
        loop.run(vfio.take_group(machine, ["0000:01:03.0"]))


def test_partition_nodes(machine: DeviceWatch) -> None:
    """The kernel puts a `p` between a disk's name that ends in a digit and the number."""
    for disk, name in (("vda", "vda2"), ("pmem0", "pmem0p2")):
        folder = Path(machine.sys_root) / f"class/block/{name}"
        folder.mkdir()
        (folder / "dev").write_text(f"{os.major(NULL)}:{os.minor(NULL)}\n")
        (Path(machine.dev_root) / name).symlink_to("/dev/null")
        assert loop.run(lookup.partition(machine, f"/dev/{disk}", 2)) == f"{machine.dev_root}/{name}"


def test_addresses_in_the_environment() -> None:
    addresses = {"0000:3b:02.1": "0000:01:03.0", "0000:3b:02.2": "0000:01:04.0"}
    info = {"0000:3b:02.1": {"generic": {"deviceID": "0000:3b:02.1"}}, "other": "x"}
    translated = devices.translate(
        ["PATH=/bin", "PCIDEVICE_INTEL_COM_NIC=0000:3b:02.2,0000:3b:02.1", f"PCIDEVICE_INTEL_COM_NIC_INFO={json.dumps(info)}"], addresses
    )
    assert translated[:2] == ["PATH=/bin", "PCIDEVICE_INTEL_COM_NIC=0000:01:04.0,0000:01:03.0"]
    name, _, text = translated[2].partition("=")
    assert name == "PCIDEVICE_INTEL_COM_NIC_INFO"
    assert json.loads(text) == {"0000:01:03.0": {"generic": {"deviceID": "0000:01:03.0"}}, "other": "x"}
    with pytest.raises(Refused, match=r"PCIDEVICE_X: '0000:00:00.0' is the address of no device"):
        devices.translate(["PCIDEVICE_X=0000:00:00.0"], addresses)


CDI_FILE = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/gpu",
    "containerEdits": {"env": ["COLOUR=blue", "GPU=all"]},
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}],
                "mounts": [{"hostPath": "/usr/lib/gpu", "containerPath": "/lib/gpu", "options": ["ro", "rbind"]}],
                "hooks": [{"hookName": "createContainer", "path": "/usr/bin/ldconfig", "args": ["ldconfig", "-C"]}],
                "additionalGids": [44],
            },
        },
        {"name": "intel", "containerEdits": {"intelRdt": {"closID": "x"}}},
        {"name": "broken", "containerEdits": {"mounts": [{}]}},
    ],
}


def inject(names: list[str], folder: Path, timeout: float = 0.0) -> Any:
    return loop.run(cdi.inject(document(), names, timeout, [str(folder)]))


def test_cdi(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(json.dumps(CDI_FILE))
    (tmp_path / "README").write_text("not read")
    annotations = {"cdi.k8s.io/a": "vendor.com/gpu=0, vendor.com/gpu=0", "other": "x"}
    names = cdi.wanted(annotations)
    assert names == ["vendor.com/gpu=0"]
    after = inject(names, tmp_path)
    assert after["process"]["env"] == ["PATH=/bin", "COLOUR=blue", "GPU=all"]
    assert after["process"]["user"] == {"additionalGids": [44]}
    assert after["linux"]["devices"] == [{"path": "/dev/gpu0", "type": "c", "major": 1, "minor": 3}]
    assert after["linux"]["resources"]["devices"] == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]
    assert after["mounts"] == [{"destination": "/lib/gpu", "source": "/usr/lib/gpu", "options": ["ro", "rbind"], "type": "bind"}]
    assert after["hooks"] == {"createContainer": [{"path": "/usr/bin/ldconfig", "args": ["ldconfig", "-C"]}]}


def test_cdi_refused(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(CDI_FILE))
    for names, reason in (
        (["vendor.com/gpu=7"], "no CDI device"),
        (["vendor.com/gpu=intel"], "intelRdt: is not applied"),
        (["vendor.com/gpu=broken"], "malformed: KeyError"),
    ):
        with pytest.raises(Refused, match=reason):
            inject(names, tmp_path)
    (tmp_path / "zzz.yaml").write_text("kind: vendor.com/gpu\n")
    with pytest.raises(Refused, match="no CDI file in JSON"):
        inject(["vendor.com/gpu=0"], tmp_path)
    with pytest.raises(Refused, match="is not VENDOR/CLASS=NAME"):
        cdi.wanted({"cdi.k8s.io/a": "gpu0"})


def test_cdi_is_waited_for(tmp_path: Path) -> None:
    async def main() -> Any:
        task = loop.spawn(cdi.inject(document(), ["vendor.com/gpu=0"], 10, [str(tmp_path)]), name="inject")
        await loop.sleep(0.05)
        (tmp_path / "gpu.json").write_text(json.dumps(CDI_FILE))
        return await task.wait()

    assert loop.run(main())["process"]["env"][-1] == "GPU=all"


def test_cdi_by_environment() -> None:
    assert cdi.wanted_by_environment(["VISIBLE_CDI_DEVICES=v.com/c=1,v.com/c=2", "X=v.com/c=3"]) == ["v.com/c=1", "v.com/c=2"]


def test_guest_hooks(tmp_path: Path) -> None:
    """Executable files in the order of their names, behind the specification's own."""
    for kind, name, mode in (("prestart", "b", 0o755), ("prestart", "a", 0o700), ("prestart", "c", 0o644), ("poststop", "z", 0o755)):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / name).touch(mode)
        (tmp_path / kind / name).chmod(mode)
    (tmp_path / "poststart").touch()
    found = hooks.find(str(tmp_path))
    assert [hook["args"] for hook in found["prestart"]] == [["a", "prestart"], ["b", "prestart"]]
    assert list(found) == ["prestart", "poststop"]
    own = {"hooks": {"prestart": [{"path": "/own"}]}}
    after = hooks.append({**document(), **own}, found)["hooks"]
    assert [hook["path"] for hook in after["prestart"]] == ["/own", f"{tmp_path}/prestart/a", f"{tmp_path}/prestart/b"]
    assert hooks.find(str(tmp_path / "none")) == {}
    assert hooks.append(document(), {}) == document()
