"""Policies: what is understood, what is allowed, how a denial reads."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused
from agent.policy.check import PARTS, Denied, check
from agent.policy.parser import RULES, Policy, parse
from agent.policy.policy_set import PolicySet
from innkeeper.wire import status
from innkeeper.wire.pb import agent_pb2 as pb
from innkeeper.wire.pb import oci_pb2 as oci
from innkeeper.wire.pb.guest_pb2 import RemoveFileRequest
from tests.paths import ROOT

DOCS = ROOT / "docs/policy.md"
HASH = "a" * 64


def container(**fields: Any) -> pb.CreateContainerRequest:
    """A request; `spec` fields go into the specification."""
    return pb.CreateContainerRequest(container_id="c1", **fields)


def spec(**fields: Any) -> pb.CreateContainerRequest:
    return container(OCI=oci.Spec(**fields))


def denial(policy: str, method: str, request: Any, service: str = "grpc.AgentService") -> Denied:
    with pytest.raises(Denied) as caught:
        check(parse(f"version = 1\n{policy}"), service, method, request)
    assert caught.value.code == status.PERMISSION_DENIED
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 160 for line in lines)
    assert "is blocked by policy: rule" in lines[0]
    return caught.value


def allow(policy: str, method: str, request: Any, service: str = "grpc.AgentService") -> None:
    check(parse(f"version = 1\n{policy}"), service, method, request)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "policy.version: must be 1"),
        ("version = 2", "policy.version: must be 1"),
        ("version = 1\nrpc = []", "policy.rpc: is no rule"),
        ("version = 1\nrpcs = '*'", "policy.rpcs: is not a list"),
        ("version = 1\nrpcs = ['']", "policy.rpcs: has an entry that is no text"),
        ("version = 1\nrpcs = [1]", "policy.rpcs: has an entry that is no text"),
        ("version = 1\nname = 7", "policy.name"),
        ('version = 1\nname = "a\\u0007"', "policy.name"),
        ("version = 1\ncapabilities = ['CAP_ROOT']", "'CAP_ROOT' is no capability"),
        ("version = 1\ncommands = [[]]", "policy.commands: has an entry that is no list of words"),
        ("version = 1\ncommands = ['ls']", "policy.commands: is not a list"),
        ("version = 1\nmounts = ['normal']", "neither 'standard' nor a table"),
        ("version = 1\nmounts = [{}]", "neither 'standard' nor a table"),
        ("version = 1\nmounts = [{path = '/'}]", "policy.mounts.path: is no pattern"),
        ("version = 1\nmounts = [{source = 1}]", "policy.mounts.source: is no pattern"),
        ("version = 1\nmounts = [{read_only = 'yes'}]", "policy.mounts.read_only"),
        ("version = 1\nrpcs = [", "policy: is not TOML"),
        ("package agent_policy\n\ndefault CreateContainerRequest := true\n", "policy: this is Rego"),
        ("import future.keywords.in\ndefault allow := false", "this is Rego"),
        ("#" * 300_000, "more than 262144 bytes"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert reason in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_is_too_strange(text: str) -> None:
    with pytest.raises(Refused):
        parse(text)


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=5))
def test_denials_are_short_whatever_is_asked(image: str, words: list[str]) -> None:
    denial("commands = []", "CreateContainer", spec(Process=oci.Process(Args=[*words, "x"])))
    denial("images = []", "CreateContainer", spec(Annotations={"io.kubernetes.cri.image-name": image}))


def test_methods() -> None:
    """No pattern covers the calls that lift a policy or go round it."""
    empty = pb.SetPolicyRequest()
    allow("rpcs = ['Create*', 'SetPolicy']", "CreateContainer", spec())
    allow("rpcs = ['Create*', 'SetPolicy']", "SetPolicy", empty)
    assert denial("rpcs = ['*']", "SetPolicy", empty).rule == "rpcs"
    assert denial("", "SetPolicy", empty).rule == "rpcs"
    assert denial("rpcs = ['Create*']", "DestroySandbox", empty).rule == "rpcs"
    allow("rpcs = ['innkeeper.v1.Guest/List*']", "ListContainers", empty, "innkeeper.v1.Guest")
    assert denial("rpcs = ['List*']", "ListContainers", empty, "innkeeper.v1.Guest").rule == "rpcs"
    assert denial("rpcs = ['*']", "StartShell", empty, "innkeeper.v1.Guest").rule == "rpcs"
    allow("rpcs = ['innkeeper.v1.Guest/StartShell']", "StartShell", empty, "innkeeper.v1.Guest")


def mount(destination: str, source: str = "", type: str = "bind", *options: str) -> pb.CreateContainerRequest:
    entry = oci.Mount(destination=destination, source=source, type=type, options=options)
    return spec(Root=oci.Root(Path="/run/kata-containers/c1/rootfs"), Mounts=[entry])


def verified(root_hash: str, *more: str) -> pb.CreateContainerRequest:
    words = ["X-kata.overlay-lower", f"X-kata.dmverity.roothash={root_hash}", *more]
    return container(storages=[pb.Storage(driver="blk", source="02", mount_point="/m", options=words)])


ALLOWED = [
    ("images = ['localhost/*:1']", spec(Annotations={"io.kubernetes.cri.image-name": "localhost/busybox:1"})),
    ("images = ['pause:*']", spec(Annotations={"io.kubernetes.cri.sandbox-image-name": "pause:3.9"})),
    ("images = ['(none)']", spec()),
    (f"layers = ['{HASH}']", verified(HASH, "X-kata.dmverity-enabled=true")),
    ("layers = ['*']", verified(HASH)),
    ("mounts = ['standard']", mount("/proc", "proc", "proc")),
    ("mounts = ['standard']", mount("/dev/shm", "/run/kata-containers/sandbox/shm", "bind", "rbind")),
    ("mounts = [{destination = '/etc/*', read_only = true}]", mount("/etc/hosts", "/run/x", "bind", "rbind", "ro")),
    ("roots = ['/image']", spec(Root=oci.Root(Path="/image"))),
    ("namespaces = ['/proc/7/ns/net']", spec(Linux=oci.Linux(Namespaces=[oci.LinuxNamespace(Type="network", Path="/proc/7/ns/net")]))),
    (
        "mounts = []",
        spec(Root=oci.Root(Path="/run/kata-containers/c1/rootfs"), Linux=oci.Linux(Namespaces=[oci.LinuxNamespace(Type="pid")])),
    ),
    ("capabilities = ['CAP_KILL']", spec(Process=oci.Process(Capabilities=oci.LinuxCapabilities(Bounding=["CAP_KILL"])))),
    ("commands = [['sh', '-c', '**']]", spec(Process=oci.Process(Args=["sh", "-c", "a", "b"]))),
    ("commands = [['s*']]", spec(Process=oci.Process(Args=["sleep"]))),
    ("hooks = ['/usr/*']", spec(Hooks=oci.Hooks(Poststop=[oci.Hook(Path="/usr/bin/x")]))),
    ("devices = ['/dev/fuse']", spec(Linux=oci.Linux(Devices=[oci.LinuxDevice(Path="/dev/fuse")]))),
    (
        "storages = ['standard']",
        container(storages=[pb.Storage(driver="ephemeral", source="shm", mount_point="/run/kata-containers/sandbox/shm")]),
    ),
]
DENIED = [
    ("images", "images = ['localhost/*']", spec(Annotations={"io.kubernetes.cri.image-name": "docker.io/busybox"})),
    ("images", "images = ['localhost/*']", spec()),
    ("layers", f"layers = ['{HASH}']", verified("b" * 64, "X-kata.dmverity-enabled=true")),
    ("layers", f"layers = ['{HASH}']", verified(HASH)),
    ("mounts", "mounts = ['standard']", mount("/proc", "/proc", "bind", "rbind")),
    ("mounts", "mounts = ['standard']", mount("/proc", "/", "proc", "rbind")),
    ("mounts", "mounts = ['standard']", mount("/etc", "/run/x", "bind")),
    ("mounts", "mounts = [{source = '/run/kata-containers/*'}]", mount("/a", "/run/kata-containers/../../etc")),
    ("mounts", "mounts = [{read_only = true}]", mount("/etc/hosts", "/run/x", "bind", "ro", "rw")),
    ("mounts", "mounts = []", mount("/proc", "proc", "proc")),
    ("roots", "mounts = []", spec(Root=oci.Root(Path="/"))),
    ("roots", "mounts = []", spec(Root=oci.Root(Path="/run/kata-containers/../.."))),
    (
        "namespaces",
        "mounts = []",
        spec(Root=oci.Root(Path="/run/kata-containers/c/r"), Linux=oci.Linux(Namespaces=[oci.LinuxNamespace(Path="/p")])),
    ),
    ("capabilities", "capabilities = ['CAP_KILL']", spec(Process=oci.Process(Capabilities=oci.LinuxCapabilities(Ambient=["CAP_CHOWN"])))),
    ("commands", "commands = [['sh', '-c', '**']]", spec(Process=oci.Process(Args=["sh"]))),
    ("commands", "commands = [['sh']]", spec(Process=oci.Process(Args=["sh", "-c"]))),
    ("commands", "commands = []", spec()),
    ("hooks", "commands = [['sh']]", spec(Process=oci.Process(Args=["sh"]), Hooks=oci.Hooks(Prestart=[oci.Hook(Path="/bin/x")]))),
    ("devices", "devices = []", container(devices=[pb.Device(container_path="/dev/x")])),
    ("storages", "storages = ['standard']", container(storages=[pb.Storage(driver="bind", source="/", mount_point="/m")])),
]


@pytest.mark.parametrize(("policy", "request_"), ALLOWED)
def test_allowed(policy: str, request_: pb.CreateContainerRequest) -> None:
    allow(policy, "CreateContainer", request_)


@pytest.mark.parametrize(("rule", "policy", "request_"), DENIED)
def test_denied(rule: str, policy: str, request_: pb.CreateContainerRequest) -> None:
    denied = denial(policy, "CreateContainer", request_)
    assert denied.rule == rule
    allow("", "CreateContainer", request_)


def test_other_methods() -> None:
    process = oci.Process(Args=["sh", "-i"], Capabilities=oci.LinuxCapabilities(Effective=["CAP_CHOWN"]))
    added = pb.ExecProcessRequest(container_id="c1", process=process)
    allow("exec = [['sh', '**']]\ncapabilities = ['CAP_CHOWN']\ncommands = []", "ExecProcess", added)
    assert denial("exec = []", "ExecProcess", added).rule == "exec"
    assert denial("capabilities = []", "ExecProcess", added).rule == "capabilities"
    assert denial("files = ['/run/a/*']", "CopyFile", pb.CopyFileRequest(path="/run/b")).rule == "files"
    allow("files = ['/run/a/*']", "CopyFile", pb.CopyFileRequest(path="/run/a/b/c"))
    removal = RemoveFileRequest(path="/run/b")
    assert denial("files = ['/run/a/*']", "RemoveFile", removal, "innkeeper.v1.Guest").rule == "files"
    assert denial("commands = []", "CreateSandbox", pb.CreateSandboxRequest(guest_hook_path="/usr/share/hooks")).rule == "hooks"
    storages = [pb.Storage(driver="ephemeral", source="x", mount_point="/y")]
    assert denial("storages = []", "CreateSandbox", pb.CreateSandboxRequest(storages=storages)).rule == "storages"
    assert denial("storages = []", "UpdateEphemeralMounts", pb.UpdateEphemeralMountsRequest(storages=storages)).rule == "storages"


def test_every_rule_is_looked_at() -> None:
    assert {rule for rules in PARTS.values() for rule in rules} | {"rpcs"} == set(RULES)
    told = re.findall(r"^\| `(\w+)` \|", DOCS.read_text().partition("## Rules")[2], re.MULTILINE)
    assert set(told) == set(RULES)


def test_the_examples_of_the_documentation() -> None:
    """Both are understood, and deny what they say."""
    text = DOCS.read_text().partition("## Example")[2]
    web, open_ = [parse(example) for example in re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    assert (web.name, open_.name) == ("web", "no-privileges")
    root = oci.Root(Path="/run/kata-containers/c/rootfs")
    nginx = spec(
        Root=root,
        Process=oci.Process(Args=["/usr/sbin/nginx", "-g", "daemon off;"]),
        Annotations={"io.kubernetes.cri.image-name": "registry.example/web@sha256:1"},
    )
    check(web, "grpc.AgentService", "CreateContainer", nginx)
    check(open_, "grpc.AgentService", "CreateContainer", nginx)
    with pytest.raises(Denied, match="rule 'exec' of policy 'web'"):
        check(web, "grpc.AgentService", "ExecProcess", pb.ExecProcessRequest(process=oci.Process(Args=["sh"])))
    privileged = spec(Root=root, Process=oci.Process(Capabilities=oci.LinuxCapabilities(Bounding=["CAP_SYS_ADMIN"])))
    with pytest.raises(Denied, match="rule 'capabilities' of policy 'no-privileges'"):
        check(open_, "grpc.AgentService", "CreateContainer", privileged)


def test_all_policies_in_force_must_allow(tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_text("version = 1\nrpcs = ['Create*', 'SetPolicy']")
    policies = PolicySet()
    policies.read(str(tmp_path / "image.toml"))
    policies.set("version = 1\nrpcs = ['CreateSandbox', 'DestroySandbox', 'SetPolicy']")
    policies.check("grpc.AgentService", "CreateSandbox", pb.CreateSandboxRequest())
    for method in ("CreateContainer", "DestroySandbox"):
        with pytest.raises(Denied):
            policies.check("grpc.AgentService", method, pb.DestroySandboxRequest())
    with pytest.raises(Refused):
        policies.set("nonsense")
    with pytest.raises(Denied):
        policies.check("grpc.AgentService", "CreateContainer", spec())


@pytest.mark.parametrize("text", [b"rpcs = ['*']", b"\xff", None])
def test_an_unreadable_file_denies_everything(text: bytes | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "p.toml").write_bytes(text)
    policies = PolicySet()
    policies.read(str(tmp_path / "p.toml"))
    with pytest.raises(Denied, match="allowed: nothing"):
        policies.check("grpc.AgentService", "GetGuestDetails", pb.GuestDetailsRequest())


def test_without_rules_nothing_is_limited() -> None:
    for method, rules in PARTS.items():
        assert rules, method
    check(Policy(), "grpc.AgentService", "CreateContainer", mount("/etc", "/", "bind"))
