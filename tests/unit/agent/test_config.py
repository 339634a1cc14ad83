"""The agent's settings: words of the kernel's command line, then the environment; what is malformed is logged, and the default stays."""

from pathlib import Path

import pytest

from agent import config
from agent.config import Config


def of(text: str, **environment: str) -> dict[str, object]:
    made = Config()
    made.apply_command_line(text)
    made.apply_environment(environment)
    return vars(made)


DEFAULTS = vars(Config())


def test_defaults_are_the_contracts() -> None:
    assert DEFAULTS == {
        "server_addr": "vsock://-1:1024",
        "grpc_addr": "",
        "log_level": "info",
        "hotplug_timeout": 3.0,
        "container_pipe_size": 0,
        "cdi_timeout": 100.0,
        "visible_cdi_devices": False,
        "debug_console": False,
        "debug_console_vport": 0,
        "dev_mode": False,
        "log_vport": 0,
        "passfd_listener_port": 0,
        "port_forward_vport": 0,
        "policy_file": "",
    }


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("agent.log=debug", "log_level", "debug"),
        ("agent.log=warning", "log_level", "warning"),
        ("agent.hotplug_timeout=10", "hotplug_timeout", 10.0),
        ("agent.container_pipe_size=2097152", "container_pipe_size", 2097152),
        ("agent.container_pipe_size=0", "container_pipe_size", 0),
        ("agent.server_addr=vsock://3:99", "server_addr", "vsock://3:99"),
        ("agent.server_addr=vsock://-1:1024", "server_addr", "vsock://-1:1024"),
        ("agent.server_addr=unix:///run/a.sock", "server_addr", "unix:///run/a.sock"),
        ("agent.server_addr=unix://@abstract", "server_addr", "unix://@abstract"),
        ("innkeeper.grpc_addr=vsock://-1:50052", "grpc_addr", "vsock://-1:50052"),
        ("innkeeper.grpc_addr=none", "grpc_addr", "none"),
        ("agent.cdi_timeout=7", "cdi_timeout", 7.0),
        ("agent.visible_cdi_devices=true", "visible_cdi_devices", True),
        ("agent.debug_console", "debug_console", True),
        ("agent.debug_console_vport=1026", "debug_console_vport", 1026),
        ("agent.devmode", "dev_mode", True),
        ("agent.log_vport=1025", "log_vport", 1025),
        ("agent.passfd_listener_port=1027", "passfd_listener_port", 1027),
        ("innkeeper.port_forward_vport=1028", "port_forward_vport", 1028),
        ("agent.policy_file=/etc/p.toml", "policy_file", "/etc/p.toml"),
    ],
)
def test_words(word: str, name: str, value: object) -> None:
    assert of(f"quiet {word} ro") == {**DEFAULTS, name: value}


def test_the_last_word_of_a_kind_wins() -> None:
    assert of("agent.log=debug agent.log=error agent.log=trace")["log_level"] == "trace"
    assert of("agent.log=debug agent.log=nonsense")["log_level"] == "debug"


def test_words_of_others_are_not_ours() -> None:
    line = "console=hvc0 systemd.unit=kata-containers.target systemd.mask=x agent.unknown=1 agent.logging=debug agent=log quiet"
    assert of(line + " root=/dev/pmem0p1 rootflags=dax,data=ordered nr_cpus=2\n") == DEFAULTS


@pytest.mark.parametrize(
    "word",
    [
        "innkeeper.grpc_addr=",
        "innkeeper.grpc_addr=tcp://0.0.0.0:50051",
        "agent.log",
        "agent.log=",
        "agent.log=verbose",
        "agent.log=DEBUG",
        "agent.hotplug_timeout=",
        "agent.hotplug_timeout=0",
        "agent.hotplug_timeout=-3",
        "agent.hotplug_timeout=1.5",
        "agent.hotplug_timeout=3s",
        "agent.hotplug_timeout=" + "9" * 400,
        "agent.hotplug_timeout=" + "9" * 5000,
        "agent.container_pipe_size=-1",
        "agent.container_pipe_size=1M",
        "agent.container_pipe_size=1_000",
        "agent.container_pipe_size=" + "9" * 30,
        "agent.server_addr=",
        "agent.server_addr=1024",
        "agent.server_addr=tcp://127.0.0.1:1024",
        "agent.server_addr=vsock://",
        "agent.server_addr=vsock://-2:1024",
        "agent.server_addr=vsock://-1:0",
        "agent.server_addr=vsock://-1:4294967296",
        "agent.server_addr=vsock://4294967296:1024",
        "agent.server_addr=vsock://x:y",
        "agent.server_addr=unix://",
        "agent.debug_console=perhaps",
        "agent.debug_console=",
        "agent.debug_console_vport=0",
        "agent.log_vport=-1",
        "agent.passfd_listener_port=4294967296",
        "agent.policy_file=policy.toml",
    ],
)
def test_malformed_values_are_logged_and_the_default_stays(word: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert of(word) == DEFAULTS
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert word.partition("=")[0] in said
    assert '"level":"ERRO"' in said


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("agent.trace", "exports no traces"),
        ("agent.trace=true", "exports no traces"),
        ("systemd.unified_cgroup_hierarchy=0", "always version 2"),
        ("cgroup_no_v1=memory", "always version 2"),
        ("agent.cdh_api_timeout=50", "no Confidential Data Hub"),
        ("agent.image_pull_timeout=1", "no Confidential Data Hub"),
        ("agent.launch_process_timeout=6", "no Confidential Data Hub"),
        ("agent.https_proxy=http://x", "no Confidential Data Hub"),
        ("agent.no_proxy=x", "no Confidential Data Hub"),
        ("agent.guest_components_rest_api=all", "no Confidential Data Hub"),
        ("agent.guest_components_procs=none", "no Confidential Data Hub"),
        ("agent.secure_storage_integrity=true", "no Confidential Data Hub"),
        ("agent.mem_agent_enable=true", "no mem-agent"),
        ("agent.mem_agent_memcg_swap=true", "no mem-agent"),
        ("agent.mem_agent_compact_order=9", "no mem-agent"),
    ],
)
def test_words_without_effect_say_so(word: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert of(word) == DEFAULTS
    said = capfd.readouterr().err
    assert '"level":"WARN"' in said
    assert f"{word.partition('=')[0]}=" in said
    assert reason in said


def test_what_is_the_case_anyway_needs_no_word(capfd: pytest.CaptureFixture[str]) -> None:
    assert of("systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all agent.trace=false agent.mem_agent_enable=false") == DEFAULTS
    assert capfd.readouterr().err == ""


FILE = """
log_level = "debug"
hotplug_timeout = { secs = 4, nanos = 500000000 }
debug_console = true
debug_console_vport = 1026
container_pipe_size = 4096
server_addr = "unix:///run/x"
passfd_listener_port = "1027"
cdi_timeout = "seven"
tracing = true
unified_cgroup_hierarchy = true
surprise = 1
"""


def test_a_file_takes_the_place_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A variable still counts, except where the command line itself named the file."""
    wanted = {
        **DEFAULTS,
        "log_level": "debug",
        "hotplug_timeout": 4.5,
        "debug_console": True,
        "debug_console_vport": 1026,
        "container_pipe_size": 4096,
        "server_addr": "unix:///run/x",
        "passfd_listener_port": 1027,
    }
    monkeypatch.delenv("KATA_AGENT_SERVER_ADDR", raising=False)
    monkeypatch.setenv("KATA_AGENT_LOG_LEVEL", "error")
    (tmp_path / "agent.toml").write_text(FILE)
    (tmp_path / "cmdline").write_text(f"agent.log=trace agent.config_file={tmp_path}/agent.toml agent.log_vport=1\n")
    assert vars(config.read(str(tmp_path / "cmdline"))) == wanted
    assert vars(config.read(file=str(tmp_path / "agent.toml"))) == {**wanted, "log_level": "error"}
    said = capfd.readouterr().err
    for word in ("cdi_timeout=seven: not a number", "tracing=true: this agent exports no traces", "surprise=1: is unknown"):
        assert word in said


@pytest.mark.parametrize("text", [b"log_level = ", b"\xff\xfe", b"[" * 5000, b""])
def test_a_file_that_is_none(text: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KATA_AGENT_LOG_LEVEL", "KATA_AGENT_SERVER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "agent.toml").write_bytes(text)
    assert vars(config.read(file=str(tmp_path / "agent.toml"))) == DEFAULTS
    assert ("the defaults stay" in capfd.readouterr().err) == bool(text)
    assert vars(config.read(file=str(tmp_path / "none.toml"))) == DEFAULTS


def test_arguments() -> None:
    assert config.argument(["quiet", "-c", "/a", "ro"]) == "/a"
    assert config.argument(["--config", "/b"]) == "/b"
    assert config.argument(["-c"]) == ""
    assert config.argument(["ro", "splash"]) == ""
    assert config.version_asked(["-v"])
    assert config.version_asked(["--version"])
    assert not config.version_asked(["--verbose"])


def test_the_environment_wins_over_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    made = of("agent.log=debug agent.server_addr=vsock://3:9", KATA_AGENT_LOG_LEVEL="warn", KATA_AGENT_SERVER_ADDR="unix:///a", OTHER="x")
    assert (made["log_level"], made["server_addr"]) == ("warn", "unix:///a")
    assert of("agent.log=debug", KATA_AGENT_LOG_LEVEL="loud")["log_level"] == "debug"
    assert "KATA_AGENT_LOG_LEVEL=loud" in capfd.readouterr().err


def test_reading_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("KATA_AGENT_LOG_LEVEL", "KATA_AGENT_SERVER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "cmdline"
    path.write_bytes(b"agent.log=debug \xff\xfe agent.hotplug_timeout=7\n")
    assert vars(config.read(str(path))) == {**DEFAULTS, "log_level": "debug", "hotplug_timeout": 7.0}
    assert vars(config.read(str(tmp_path / "none"))) == DEFAULTS
    assert "none" in capfd.readouterr().err
    monkeypatch.setenv("KATA_AGENT_LOG_LEVEL", "trace")
    assert config.read(str(path)).log_level == "trace"
