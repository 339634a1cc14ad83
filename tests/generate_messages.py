"""Generates `innkeeper/wire/pb` and `innkeeper/shim/pb` from the `proto` beside each: `python -m tests.generate_messages`.

Needs grpcio-tools. A module holds a file's serialized descriptor and hands it to `innkeeper.wire.messages`; its `.pyi` is protoc's own.
"""

import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

from tests.paths import ROOT

WIRE, SHIM = ROOT / "innkeeper" / "wire", ROOT / "innkeeper" / "shim"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"
SOURCES = {WIRE: ["google/protobuf/empty.proto"], SHIM: []}
"""Package -> what it has messages of beside those of its own files."""
WIDTH = 120


def _module_name(proto: str) -> str:
    return f"{Path(proto).stem}_pb2"


def _module(file: descriptor_pb2.FileDescriptorProto) -> str:
    needs = sorted(_module_name(dependency) for dependency in file.dependency)
    data = file.SerializeToString(deterministic=True)
    lines = [f'"""Messages of {file.name}; generated, do not edit."""', "", "from innkeeper.wire.messages import load"]
    if needs:
        lines.append(f"from innkeeper.wire.pb import {', '.join(needs)}")
    lines += ["", "__getattr__ = load(", "    globals(),"]
    lines += [f"    {data[at : at + 48]!r}" for at in range(0, len(data), 48)]
    lines += [")", ""]
    return "\n".join(lines)


def _stub(text: str) -> str:
    """protoc's stub, made to import our modules, and with fields named like their own type (`Process: Process`) kept apart from it."""
    text = re.sub(r"^import (\w+_pb2) as", r"from innkeeper.wire.pb import \1 as", text, flags=re.M)
    text = re.sub(r"^from google.protobuf import (empty_pb2) as", r"from innkeeper.wire.pb import \1 as", text, flags=re.M)
    text = re.sub(r"\b_Mapping\]", "_Mapping[str, object]]", text)
    for name in sorted(set(re.findall(r"^    (\w+): \1$", text, flags=re.M))):
        text = re.sub(rf"^    {name}: {name}$", f"    {name}: _{name}Type", text, flags=re.M)
        text = re.sub(rf"_Union\[{name},", f"_Union[_{name}Type,", text) + f"\n_{name}Type = {name}"
    return f"{text.rstrip()}\n\nSERVICES: dict[str, dict[str, tuple[type[_message.Message], type[_message.Message]]]]\n"


def generate(package: Path, target: Path) -> None:
    """Write every module of `package` and its stub into the folder `target`."""
    protos = sorted(path.name for path in (package / "proto").glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        files = descriptor_pb2.FileDescriptorSet()
        done = protoc.main(
            ["protoc", f"-I{package / 'proto'}", f"-I{WELL_KNOWN}", f"--descriptor_set_out={scratch}/all", "--include_imports",
             f"--pyi_out={scratch}", *SOURCES[package], *protos]
        )  # fmt: skip
        if done != 0:
            sys.exit(f"protoc ended with status {done}")
        files.ParseFromString((Path(scratch) / "all").read_bytes())
        for file in files.file:
            name = _module_name(file.name)
            (target / f"{name}.py").write_text(_module(file))
            stub = (Path(scratch) / file.name).with_name(f"{name}.pyi").read_text()
            (target / f"{name}.pyi").write_text(_stub(stub))


if __name__ == "__main__":
    for package in SOURCES:
        generate(package, package / "pb")
