"""Requests that nobody sends in earnest: messages of any type, filled with what is strange for each field."""

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

STRANGE = (
    *("", " ", ".", "..", "/", "//", "a/b", "../../etc", "c1", "c2", "x" * 300, "\0", "a\0b", "\u202e", "\U0001f40b", "é" * 40, "-1", "0"),
    *("%s%n", "$(reboot)", "`id`", "a=b", "a,b", "=", ",", ":", "::", "*", "[", "]]", "{{ mount 0 }}", "\n", "\r\n", "true", "NaN", "\x7f"),
)
POOLS: dict[str, tuple[str, ...]] = {
    "container_id": ("c1", "c2", "guest", "c1 ", "C" * 256, "../c1"),
    "exec_id": ("c1", "e1", "", "..", "e" * 300),
    "driver": (
        *("blk", "mmioblk", "scsi", "nvdimm", "virtio-fs", "9p", "overlayfs", "ephemeral", "local", "bind", "watchable-bind"),
        *("erofs.multi-layer", "image_guest_pull", "blk-ccw", "BLK"),
    ),
    "fstype": ("tmpfs", "ext4", "erofs", "overlay", "bind", "virtiofs", "9p", "hugetlbfs", "mkfs/ext4", "proc", "x" * 99),
    "type": (
        "blk",
        "mmioblk",
        "scsi",
        "nvdimm",
        "vfio-pci",
        "vfio-pci-gk",
        "vfio-ap",
        "bind",
        "proc",
        "tmpfs",
        "mount",
        "pid",
        "user",
        "c",
        "b",
    ),
    "Type": ("pid", "mount", "network", "ipc", "uts", "user", "cgroup", "time", "RLIMIT_NOFILE", "c", "b", "p"),
    "options": (
        *(
            "ro",
            "rw",
            "rbind",
            "bind",
            "remount",
            "loop",
            "size=1",
            "size=-1",
            "mode=9",
            "mode=0777",
            "fsgid=4294967296",
            "fsgid=5",
            "ro,rw",
        ),
        *("lowerdir=a:b", "upperdir=/", "X-kata.multi-layer=true", "X-kata.overlay-upper", "X-kata.overlay-lower", "X-kata.mkfs=true"),
        *("X-kata.dmverity-enabled=true", "X-kata.dmverity.roothash=00", "X-kata.mkdir.path={{ mount 0 }}/../..", "pagesize=1,size=1"),
        *("io.katacontainers.fs-opt.overlay-rw", "0000:00:00.0=00", "0000:ff:1f.7=zz/..", "private", "\\,", "a" * 5000),
    ),
    "source": (
        "02",
        "02/03",
        "0:1",
        "/dev/none",
        "/dev/../etc/passwd",
        "/proc/self/mem",
        "kataShared",
        "tmpfs",
        "overlay",
        "{folder}/file",
    ),
    "id": ("02/03", "20/01/02", "ff", "1f.7", "0:1", ""),
    "vm_path": ("/dev/none", "/etc/passwd", "/dev/..", "/dev/null"),
    "mount_point": ("{folder}/m", "{folder}/m/n", "{folder}/file", "/", "", "relative", "/a/../b", "{folder}/m\0n", "/proc/self/fd/3"),
    "path": ("/run/kata-containers/shared/containers/f", "/run/kata-containers/shared/containers/../../x", "{folder}/file", "/etc/passwd"),
    "Path": ("{folder}/rootfs", "/proc/self/ns/pid", "/proc/1/ns/mnt", "/", "relative", "/dev/x", "/bin/true"),
    "destination": ("/proc", "/a", "/../..", "relative", "/proc/self/x", "/dev", ""),
    "volume_guest_path": ("{folder}", "/proc", "/", "relative", "/none"),
    "Args": ("true", "/bin/true", "sh", "-c", "/none", ""),
    "Env": ("A=b", "=", "A", "PATH=/bin", "PCIDEVICE_X=0000:00:00.0"),
    "Cwd": ("/", "/none", "relative", "/proc/self/cwd"),
    "CgroupsPath": ("/a", "a:b:c", "../../x", "/..", "", "system.slice:x:y"),
    "Bounding": ("CAP_CHOWN", "CAP_NONE", "CAP_SYS_ADMIN"),
    "Names": ("read", "reboot", "nosuchcall"),
    "Action": ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "X"),
    "DefaultAction": ("SCMP_ACT_ALLOW", "SCMP_ACT_KILL", ""),
    "device": ("lo", "eth0", "x" * 16, "a/b"),
    "name": ("lo", "eth0", "lo_temp", "x" * 16, "a/b", ".."),
    "address": ("10.0.0.1", "::1", "300.1.1.1", "fe80::%lo", "10.0.0.1/24"),
    "toIPAddress": ("10.0.0.1",),
    "mask": ("24", "33", "129", "-1", "x"),
    "dest": ("10.0.0.0/8", "", "::/0", "x/y", "10.0.0.0/99"),
    "gateway": ("10.0.0.1", "::1", "x"),
    "hwAddr": ("02:00:00:00:00:01", "zz", "02:00"),
    "lladdr": ("02:00:00:00:00:01", "zz"),
    "policy": ("version = 1", "package x", "[" * 500, "version = 1\nrpcs = 3"),
    "log_type": ("termination_log", "x"),
    "guest_hook_path": ("{folder}", "/none"),
    "dns": ("nameserver 10.0.0.1", "", "x" * 4000),
    "hostname": ("box", "x" * 65, "a b", ""),
}
NUMBERS = (
    0,
    1,
    2,
    3,
    9,
    15,
    64,
    65,
    255,
    1000,
    4096,
    65535,
    65536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
SIGNED = (*NUMBERS, -1, -2, -(1 << 31), -(1 << 63))
BITS = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
}


class Maker:
    """Messages from one source of chance; `folder` is where paths may lead that exist."""

    def __init__(self, chance: random.Random, folder: str) -> None:
        self.chance = chance
        self.folder = folder

    def message(self, kind: Any, depth: int = 0) -> Any:
        """A message of the class with about half of its fields set."""
        made = kind()
        for field in kind.DESCRIPTOR.fields:
            if self.chance.random() < 0.55 - 0.03 * depth:
                self._set(made, field, depth)
        return made

    def payload(self, kind: Any, template: Any = None) -> bytes:
        """Bytes for a method: mostly a message, often damaged, sometimes nothing that was ever one. `template`: one that is in order."""
        dice = self.chance.random()
        if dice < 0.1:
            return self.chance.randbytes(self.chance.randrange(60))
        if template is not None and dice > 0.5:
            return bytes(self._mutated(template).SerializeToString())
        data = bytearray(self.message(kind).SerializeToString())
        if dice < 0.3 and data:
            for _ in range(self.chance.randrange(1, 4)):
                data[self.chance.randrange(len(data))] = self.chance.randrange(256)
        elif dice < 0.4:
            del data[self.chance.randrange(len(data) + 1) :]
        return bytes(data)

    def _mutated(self, template: Any) -> Any:
        """The template with up to three fields of it, or of what is in it, made strange."""
        made = type(template)()
        made.CopyFrom(template)
        for _ in range(self.chance.randrange(4)):
            place = made
            while inner := [value for field, value in place.ListFields() if field.message_type is not None and not field.is_repeated]:
                if self.chance.random() < 0.35:
                    break
                place = self.chance.choice(inner)
            field = self.chance.choice(place.DESCRIPTOR.fields)
            if field.is_repeated and self.chance.random() < 0.5:
                place.ClearField(field.name)
            self._set(place, field, 1)
        return made

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(self.chance.randrange(3)):
                value = field.message_type.fields_by_name["value"]
                if value.message_type is None:
                    getattr(message, field.name)[self._text("")] = self._scalar(value)
        elif field.is_repeated:
            for _ in range(self.chance.randrange(4)):
                if field.message_type is not None:
                    getattr(message, field.name).append(self.message(GetMessageClass(field.message_type), depth + 1))
                else:
                    getattr(message, field.name).append(self._scalar(field))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self.message(GetMessageClass(field.message_type), depth + 1))
        else:
            setattr(message, field.name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field.name)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self.chance.randbytes(self.chance.choice((0, 1, 7, 300)))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return self.chance.random() < 0.5
        if field.type == FieldDescriptor.TYPE_ENUM:
            return self.chance.choice((0, 1, 2, 77))
        if field.name == "PCIPath":
            return self.chance.choice((30, 31, 32, (1 << 32) - 1))  # a machine's own disks are not for swapping
        low, high = BITS[field.type]
        return min(high, max(low, self.chance.choice(SIGNED)))

    def _text(self, name: str) -> str:
        pool = POOLS.get(name, ())
        if pool and self.chance.random() < 0.8:
            return self.chance.choice(pool).replace("{folder}", self.folder)
        return self.chance.choice(STRANGE)
