"""Settings of the agent: the kernel command line, a TOML file and the environment."""

import os

from agent import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEFAULT_ADDRESS = "vsock://-1:1024"
FILE_WORD = "agent.config_file"
"""Word of the command line that names a TOML file."""
PREFIX_OF_MEM_AGENT = "agent.mem_agent_"
MAX_FILE = 1 << 20
"""Most bytes that are read of a TOML file."""
PORT_MAX = (1 << 32) - 1


class Config:
    """The settings of the agent.

    Times are in seconds and sizes in bytes. A port of 0 means that there is none.
    """

    server_addr: str
    grpc_addr: str
    log_level: str
    hotplug_timeout: float
    container_pipe_size: int
    cdi_timeout: float
    visible_cdi_devices: bool
    debug_console: bool
    debug_console_vport: int
    dev_mode: bool
    log_vport: int
    passfd_listener_port: int
    port_forward_vport: int
    policy_file: str

    def __init__(self) -> None:
        for option in OPTIONS:
            setattr(self, option.name, option.default)

    def apply_command_line(self, text: str) -> None:
        """Apply the words of /proc/cmdline.

        The last word of a kind wins. Unknown words belong to other programs. A malformed value is
        logged and ignored.
        """
        for word in text.split():
            key, equals, value = word.partition("=")
            if option := _BY_WORD.get(key):
                self._set(key, option, value if equals or not option.flag else "true")
            elif key in WITHOUT_EFFECT or key.startswith(PREFIX_OF_MEM_AGENT):
                _pass_over(key, value, WITHOUT_EFFECT.get(key, NO_MEM_AGENT))

    def apply_document(self, document: "Mapping[str, object]") -> None:
        """Apply the keys of a TOML file. An unknown key is logged."""
        for key, value in document.items():
            if option := _BY_KEY.get(key):
                self._set(key, option, _text(value))
            else:
                _pass_over(key, _text(value), WITHOUT_EFFECT.get(f"agent.{key}", "is unknown and has no effect"))

    def apply_environment(self, environment: "Mapping[str, str]") -> None:
        """Apply the environment variables in VARIABLES. They override the command line."""
        for key, name in VARIABLES.items():
            if key in environment and name in _BY_KEY:
                self._set(key, _BY_KEY[name], environment[key])
            elif key in environment:
                _pass_over(key, environment[key], WITHOUT_EFFECT[name])

    def _set(self, key: str, option: "Option", value: str) -> None:
        """Set an option. A malformed value is logged, and the default stays."""
        try:
            setattr(self, option.name, option.parse(value))
        except ValueError as error:
            log.error(f"{key}={value[:80]}: {error}; the default stays", "config")


def _pass_over(key: str, value: str, why: str) -> None:
    """Log that a setting has no effect, unless its value describes how the agent works anyway."""
    if value not in AS_IT_IS.get(key.removeprefix("agent."), ("false",)):
        log.warn(f"{key}={value[:80]}: {why}", "config")


def _address(value: str) -> str:
    """Check a vsock:// or unix:// address. Raises ValueError."""
    scheme, _, rest = value.partition("://")
    if scheme == "vsock":
        cid, _, port = rest.partition(":")
        if cid != "-1":
            _number(cid, 0, PORT_MAX)
        _number(port, 1, PORT_MAX)
    elif scheme != "unix" or not rest:
        raise ValueError("not a vsock:// or unix:// address")
    return value


def _grpc_address(value: str) -> str:
    return value if value == "none" else _address(value)


def _level(value: str) -> str:
    if value not in log.TAGS:
        raise ValueError("not a log level")
    return value


def _size(value: str) -> int:
    return _number(value, 0, (1 << 31) - 1)


def _port(value: str) -> int:
    return _number(value, 1, PORT_MAX)


def _seconds(value: str) -> float:
    """Parse a duration: `SECONDS` or, from TOML, `SECONDS+NANOSECONDS`. Raises ValueError."""
    whole, _, nanos = value.partition("+")
    return _number(whole, 0 if nanos else 1, (1 << 31) - 1) + (_number(nanos, 0, 999_999_999) / 1e9 if nanos else 0.0)


def _flag(value: str) -> bool:
    if value not in ("true", "false", "1", "0"):
        raise ValueError("not true or false")
    return value in ("true", "1")


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("not an absolute path")
    return value


def _number(value: str, low: int, high: int) -> int:
    """Parse a number of decimal digits and nothing else. Raises ValueError."""
    if not (value.isascii() and value.isdigit() and len(value) <= 10 and low <= int(value) <= high):
        raise ValueError(f"not a number from {low} to {high}")
    return int(value)


def _text(value: object) -> str:
    """Return a TOML value in the syntax of the command line.

    A table of `secs` and `nanos` is a duration.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict) and set(value) <= {"secs", "nanos"}:
        return f"{value.get('secs', 0)}+{value.get('nanos', 0)}"
    return str(value)


class Option:
    """One setting: its word on the command line, its attribute here, and its key in TOML.

    A flag may stand alone on the command line, which means true.
    """

    def __init__(self, word: str, name: str, parse: "Callable[[str], object]", default: object, key: str = "") -> None:
        self.word = word
        self.name = name
        self.parse = parse
        self.default = default
        self.key = key or word.removeprefix("agent.")
        self.flag = parse is _flag


OPTIONS = (
    Option("agent.server_addr", "server_addr", _address, DEFAULT_ADDRESS),
    Option("innkeeper.grpc_addr", "grpc_addr", _grpc_address, "", "grpc_addr"),
    Option("agent.log", "log_level", _level, "info", "log_level"),
    Option("agent.hotplug_timeout", "hotplug_timeout", _seconds, 3.0),
    Option("agent.container_pipe_size", "container_pipe_size", _size, 0),
    Option("agent.cdi_timeout", "cdi_timeout", _seconds, 100.0),
    Option("agent.visible_cdi_devices", "visible_cdi_devices", _flag, False),
    Option("agent.debug_console", "debug_console", _flag, False),
    Option("agent.debug_console_vport", "debug_console_vport", _port, 0),
    Option("agent.devmode", "dev_mode", _flag, False, "dev_mode"),
    Option("agent.log_vport", "log_vport", _port, 0),
    Option("agent.passfd_listener_port", "passfd_listener_port", _port, 0),
    Option("innkeeper.port_forward_vport", "port_forward_vport", _port, 0, "port_forward_vport"),
    Option("agent.policy_file", "policy_file", _path, ""),
)
_ONLY_V2 = "control groups are always version 2 here"
_NO_CDH = "there is no Confidential Data Hub in this guest: images are pulled on the host"
NO_MEM_AGENT = "there is no mem-agent here"
WITHOUT_EFFECT = {
    "agent.trace": "this agent exports no traces",
    "agent.tracing": "this agent exports no traces",
    "systemd.unified_cgroup_hierarchy": _ONLY_V2,
    "agent.unified_cgroup_hierarchy": _ONLY_V2,
    "cgroup_no_v1": _ONLY_V2,
    "agent.cgroup_no_v1": _ONLY_V2,
    "agent.cdh_api_timeout": _NO_CDH,
    "agent.image_pull_timeout": _NO_CDH,
    "agent.launch_process_timeout": _NO_CDH,
    "agent.https_proxy": _NO_CDH,
    "agent.no_proxy": _NO_CDH,
    "agent.guest_components_rest_api": _NO_CDH,
    "agent.guest_components_procs": _NO_CDH,
    "agent.secure_storage_integrity": _NO_CDH,
}
"""Words of Kata's contract that have no effect here, and the reason that is logged.

All words that begin with PREFIX_OF_MEM_AGENT belong to them too.
"""
AS_IT_IS = {
    "systemd.unified_cgroup_hierarchy": ("1", "true"),
    "unified_cgroup_hierarchy": ("true",),
    "cgroup_no_v1": ("all",),
}
"""Values of those words that cause no warning."""
VARIABLES = {
    "KATA_AGENT_SERVER_ADDR": "server_addr",
    "INNKEEPER_GRPC_ADDR": "grpc_addr",
    "KATA_AGENT_LOG_LEVEL": "log_level",
    "KATA_AGENT_POLICY_FILE": "policy_file",
    "KATA_AGENT_TRACING": "agent.trace",
}
"""Environment variables, each with its setting or with a word that has no effect."""
_BY_WORD = {option.word: option for option in OPTIONS}
_BY_KEY = {option.key: option for option in OPTIONS}


def argument(words: "Sequence[str]") -> str:
    """Return the file of `-c FILE` or `--config FILE` in the arguments, or "" without one.

    Unknown arguments are ignored, because the kernel passes words that it does not know to PID 1.
    """
    for position, word in enumerate(words[:-1]):
        if word in ("-c", "--config"):
            return words[position + 1]
    return ""


def read(path: str = "/proc/cmdline", file: str = "") -> Config:
    """Return the settings.

    If `file` is given, they come from that TOML file and then from the environment. Otherwise, if
    the command line at `path` names a file, they come from that file only. Otherwise they come
    from the command line and then from the environment. Errors are logged.
    """
    config = Config()
    if file:
        _apply_file(config, file)
        config.apply_environment(os.environ)
        return config
    text = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            text = lines.read()
    except OSError as error:
        log.error(f"{path}: {error}", "config")
    named = [word.partition("=")[2] for word in text.split() if word.startswith(f"{FILE_WORD}=")]
    if named:
        _apply_file(config, named[-1])
        return config
    config.apply_command_line(text)
    config.apply_environment(os.environ)
    return config


def _apply_file(config: Config, path: str) -> None:
    """Apply a TOML file. If it cannot be read or parsed, that is logged and the defaults stay."""
    import tomllib

    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE)
        config.apply_document(tomllib.loads(text.decode()))
    except (OSError, ValueError, RecursionError) as error:
        log.error(f"{path}: {error}; the defaults stay", "config")


def version_asked(words: "Sequence[str]") -> bool:
    """Return True if the arguments ask for the version."""
    return any(word in ("-v", "--version") for word in words)
