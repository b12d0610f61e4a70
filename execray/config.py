"""The configuration of all three daemons and the CLI: each takes its own section. execray.config_load reads it.

Every value has a default, so no file at all is a valid configuration (host mode `audit`).
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from execray.places import CONFIG_FILE, PLUGIN_DIR
from execray.plugins import Settings

DEFAULT_PATH = CONFIG_FILE


@dataclass(frozen=True, slots=True)
class TracerdConfig:
    """tracerd: the sensor."""

    syscall_counter: bool = False  # count every system call as a second sign of life; costs about 80 ns each
    buffer_mib: int = 16  # unacknowledged batches kept while policyd is away
    flush_ms: float = 1.0  # the longest a decoded event waits for company
    rest_ms: float = 100.0  # how long records that nothing is to be done at gather after the last look; 0: read at once
    heartbeat_s: float = 1.0
    subscribers: tuple[str | int, ...] = ("execray-policyd",)  # besides root, who may subscribe to events
    #: Besides root, whose daemons may ask to be left out of the events.
    registrants: tuple[str | int, ...] = ("execray-policyd", "execray-enforcer")
    process_cache: int = 65536  # processes remembered
    gate: str = (
        "on"  # on; off: every event that is wanted leaves the kernel; shadow: the same, flagged with the verdict
    )
    inline: str = "off"  # on: policies that the kernel can finish are, in the last call itself; off: the enforcer kills


@dataclass(frozen=True, slots=True)
class PolicydConfig:
    """policyd: the engine."""

    policy_dirs: tuple[Path, ...] = (Path("/etc/execray/policies"),)
    disabled: tuple[str, ...] = ()  # names of policies that are compiled, and don't run
    user: str = ""  # where it is started by root, the account it changes to; empty: stays
    sinks: tuple[str, ...] = ("file", "stdout")  # file, stdout, journal, and installed plug-ins
    actions: tuple[str, ...] = ()  # action plug-ins that policies may `notify`
    plugins: Mapping[str, Settings] = field(default_factory=dict)  # settings, by plug-in; merged by name
    plugin_dir: Path = PLUGIN_DIR  # where plug-ins are, beside ExecRay's own environment
    plugin_timeout_s: float = 5.0  # for one alert or request; past it the plug-in's process is killed
    plugin_memory_mib: int = 256  # of address space, for each plug-in's process
    alerts_max_mib: int = 16  # size at which the alert file is rotated
    alerts_keep: int = 4  # rotated files kept
    order_timeout_ms: int = 100  # no outcome from the enforcer within this: kill directly
    state_budget_mib: int = 16  # the most that loaded policies may count with
    alert_throttle: tuple[int, float] = (1, 60.0)  # N alerts per this many seconds, for each policy and process image


@dataclass(frozen=True, slots=True)
class EnforcerConfig:
    """enforcer: kills and captures."""

    orderers: tuple[str | int, ...] = ("execray-policyd",)  # besides root, who may order
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
    """All of it. Sockets and state lie below two folders, so a private instance only moves those."""

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

    def daemon_dir(self, daemon: str) -> Path:
        """The folder of one daemon's sockets: its own, so that no other account can rename a socket away."""
        return self.runtime_dir / daemon

    @property
    def stream_socket(self) -> Path:
        """tracerd's event stream."""
        return self.daemon_dir("tracerd") / "stream.sock"

    @property
    def order_socket(self) -> Path:
        """Where the enforcer takes orders."""
        return self.daemon_dir("enforcer") / "orders.sock"

    def control_socket(self, daemon: str) -> Path:
        """The control socket of `tracerd`, `policyd` or `enforcer`."""
        return self.daemon_dir(daemon) / "ctl.sock"

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


@dataclass(frozen=True, slots=True)
class Layered:
    """A configuration, and where each of its values came from."""

    config: Config
    origin: dict[str, str]  # by dotted key, of every key: `default`, or FILE:LINE


def load(path: Path | None = None) -> Config:
    """Reads the configuration, as load_layers does. Raises ConfigError."""
    return load_layers(path).config


def load_layers(path: Path | None = None) -> Layered:
    """Reads a file and the drop-ins beside it; with None, those of DEFAULT_PATH as far as they exist. Raises ConfigError."""
    from execray import config_load  # noqa: PLC0415  # YAML is slow to import, and not everybody who has a Config reads one

    return config_load.load_layers(DEFAULT_PATH if path is None else path, must_exist=path is not None)


class Accounts(NamedTuple):
    """The uids behind a list of accounts, and the names in it that nobody has."""

    uids: frozenset[int]
    missing: tuple[str, ...]


def uids_of(accounts: Iterable[str | int]) -> Accounts:
    """Looks up user names; numbers are uids already. A name that doesn't exist permits nobody."""
    uids: set[int] = set()
    missing: list[str] = []
    for account in accounts:
        if isinstance(account, int):
            uids.add(account)
            continue
        try:
            uids.add(pwd.getpwnam(account).pw_uid)
        except KeyError:
            missing.append(account)
    return Accounts(frozenset(uids), tuple(missing))
