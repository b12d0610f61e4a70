"""The one configuration file, YAML, read by all three daemons and the CLI: each takes its own section.

Every value has a default, so no file at all is a valid configuration (host mode `audit`). A key that isn't known is an
error: a misspelt `mode` must not silently mean audit, nor a misspelt `protect` nothing.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from execray.errors import ConfigError

DEFAULT_PATH = Path("/etc/execray/execray.yaml")


@dataclass(frozen=True, slots=True)
class TracerdConfig:
    """tracerd: the sensor."""

    syscall_counter: bool = False  # count every system call as a second sign of life; costs about 80 ns each
    buffer_mib: int = 16  # unacknowledged batches kept while policyd is away
    flush_ms: float = 1.0  # the longest a decoded event waits for company
    heartbeat_s: float = 1.0
    subscriber_uids: tuple[int, ...] = ()  # besides root, who may subscribe to events
    process_cache: int = 65536  # processes remembered


@dataclass(frozen=True, slots=True)
class PolicydConfig:
    """policyd: the engine."""

    policy_dirs: tuple[Path, ...] = (Path("/etc/execray/policies"),)
    user: str = ""  # where it is started by root, the account it changes to; empty: stays
    sinks: tuple[str, ...] = ("file", "stdout")  # file, stdout, journal
    alerts_max_mib: int = 16  # size at which the alert file is rotated
    alerts_keep: int = 4  # rotated files kept
    order_timeout_ms: int = 100  # no outcome from the enforcer within this: kill directly
    alert_throttle: tuple[int, float] = (1, 60.0)  # N alerts per this many seconds, for each policy and process image


@dataclass(frozen=True, slots=True)
class EnforcerConfig:
    """enforcer: kills and captures."""

    order_uids: tuple[int, ...] = ()  # besides root, who may order
    kills_per_minute: int = 30
    kills_per_minute_per_policy: int = 10
    order_max_age_s: float = 5.0
    capture_max_s: float = 60.0
    capture_max_mib: int = 16
    captures_at_once: int = 4
    capture_keep: int = 64  # files kept, the oldest removed
    tcpdump: str = "tcpdump"
    capture_interface: str = "any"


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. Sockets and state lie below two folders, so a private instance only moves those."""

    mode: str = "audit"  # host mode: audit, or enforce
    runtime_dir: Path = Path("/run/execray")
    state_dir: Path = Path("/var/lib/execray")
    group: str = "execray"  # may talk to the control sockets; a name that doesn't exist means root only
    protect_exe: tuple[str, ...] = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/usr/sbin/sshd")
    protect_comm: tuple[str, ...] = ()
    log_level: str = "info"
    tracerd: TracerdConfig = field(default_factory=TracerdConfig)
    policyd: PolicydConfig = field(default_factory=PolicydConfig)
    enforcer: EnforcerConfig = field(default_factory=EnforcerConfig)

    @property
    def stream_socket(self) -> Path:
        """tracerd's event stream."""
        return self.runtime_dir / "tracerd.sock"

    @property
    def order_socket(self) -> Path:
        """Where the enforcer takes orders."""
        return self.runtime_dir / "enforcer.sock"

    def control_socket(self, daemon: str) -> Path:
        """The control socket of `tracerd`, `policyd` or `enforcer`."""
        return self.runtime_dir / f"{daemon}-ctl.sock"

    @property
    def alerts_file(self) -> Path:
        """Alerts, one JSON object a line, the newest last."""
        return self.state_dir / "policyd" / "alerts.jsonl"

    @property
    def capture_dir(self) -> Path:
        """Where the enforcer writes pcap files."""
        return self.state_dir / "captures"

    @property
    def audit_log(self) -> Path:
        """The enforcer's line for each order and outcome."""
        return self.state_dir / "enforcer" / "orders.jsonl"


_RANGES: dict[str, tuple[float, float]] = {
    "buffer_mib": (1, 1024),
    "flush_ms": (0.1, 1000),
    "heartbeat_s": (0.1, 60),
    "process_cache": (1024, 4_194_304),
    "alerts_max_mib": (1, 4096),
    "alerts_keep": (1, 100),
    "order_timeout_ms": (1, 10_000),
    "kills_per_minute": (0, 10_000),
    "kills_per_minute_per_policy": (0, 10_000),
    "order_max_age_s": (0.1, 300),
    "capture_max_s": (0.1, 3600),
    "capture_max_mib": (1, 4096),
    "captures_at_once": (0, 64),
    "capture_keep": (1, 100_000),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("audit", "enforce"),
    "log_level": ("debug", "info", "warning", "error"),
    "sinks": ("file", "stdout", "journal"),
}


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: of two modes, the one that was overlooked would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises ConstructorError for a key that came before."""
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"`{key.value}` stands here twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path | None = None) -> Config:
    """Reads the file; with None, DEFAULT_PATH if it exists and defaults if not. Raises ConfigError."""
    if path is None and not DEFAULT_PATH.exists():
        return Config()
    path = path or DEFAULT_PATH
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", "name another file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(
            f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}", "mend that line"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply", "the deepest value is a list in a section") from error
    config = _section(Config, {} if raw is None else raw, "", path)
    assert isinstance(config, Config)
    return config


def _section(cls: type[Any], raw: object, prefix: str, path: Path) -> object:
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: {prefix.rstrip('.') or 'the file'} must be a mapping, not {_kind(raw)}",
            "write `key: value` lines",
        )
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, object] = {}
    for key, value in raw.items():
        if key not in names:
            raise ConfigError(f"{path}: unknown key `{prefix}{key}`", f"the keys here are {', '.join(names)}")
        values[key] = _value(hints[key], value, f"{prefix}{key}", path)
    return cls(**values)


def _value(kind: Any, value: object, name: str, path: Path) -> object:
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, f"{name}.", path)  # type: ignore[arg-type]  # is_dataclass also admits instances
    if isinstance(kind, types.GenericAlias) or typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        if not isinstance(value, list) or (items[-1] is not ... and len(value) != len(items)):
            raise ConfigError(f"{path}: `{name}` must be a list, not {_kind(value)}", "write it as [a, b]")
        kinds = [items[0]] * len(value) if items[-1] is ... else list(items)
        found = tuple(_value(k, v, name, path) for k, v in zip(kinds, value, strict=True))
        _check_list(found, name, path)
        return found
    wanted: tuple[type, ...] = {Path: (str,), float: (int, float)}.get(kind, (kind,))
    # bool is an int in Python, never in a configuration
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: `{name}` must be {_NAMES.get(kind, kind.__name__)}, not {_kind(value)}")
    return _bounded(kind(value), name, path)


_NAMES: dict[type, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def _bounded(value: object, name: str, path: Path) -> object:
    leaf = name.rpartition(".")[2]
    if isinstance(value, int | float) and leaf in _RANGES:
        low, high = _RANGES[leaf]
        if not low <= value <= high:
            raise ConfigError(f"{path}: `{name}` is {value}", f"it must be from {low:g} to {high:g}")
    if isinstance(value, str) and leaf in _CHOICES and value not in _CHOICES[leaf]:
        raise ConfigError(f"{path}: `{name}` is `{value}`", f"it must be one of {', '.join(_CHOICES[leaf])}")
    return value


def _check_list(found: tuple[Any, ...], name: str, path: Path) -> None:
    if name == "protect_exe" and (relative := [exe for exe in found if exe and not exe.startswith("/")]):
        # It would protect nothing: programs are known by their whole path.
        raise ConfigError(f"{path}: `{name}` has `{relative[0]}`", "write the whole path, or use `protect_comm`")
    if name == "policyd.alert_throttle":
        most, seconds = found
        if not (1 <= most <= 10_000 and 0 < seconds <= 86_400):
            hint = "write [N, SECONDS]: N from 1 to 10000, in more than 0 and at most 86400 seconds"
            raise ConfigError(f"{path}: `{name}` is {list(found)}", hint)


def _kind(value: object) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "empty"}.get(type(value), repr(value))
