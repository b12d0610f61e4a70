"""Where alerts go. A sink may block or fail; neither stops detection, nor the other sinks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from execray.wire.control import encode_line

Alert: TypeAlias = Mapping[str, Any]  # the JSON object of docs/alerts.md

#: What processes wrote and read, their arguments and environments, by every name that an alert has for it.
SECRET: Final = frozenset({"content", "argv", "cmdline", "args", "command_line", "env", "env_vars"})


class Sink(Protocol):
    """One place that alerts are sent to."""

    @property
    def name(self) -> str:
        """What `status` and the configuration call it."""
        ...

    def write(self, alert: Alert) -> None:
        """Delivers one alert; may block. Raises OSError when it could not be delivered."""
        ...

    def close(self) -> None:
        """Lets go of what it holds. Called once, after the last write."""
        ...


@dataclass(slots=True)
class SinkStats:
    """Alerts since start, by what became of them in one sink."""

    written: int = 0
    failed: int = 0  # write raised
    dropped: int = 0  # not tried: the sink was too far behind
    last_error: str = ""

    def to_json(self) -> dict[str, object]:
        """Returns the counts, with the last error where there was one."""
        counts: dict[str, object] = {"written": self.written, "failed": self.failed, "dropped": self.dropped}
        return {**counts, "last_error": self.last_error} if self.last_error else counts


def alert_line(alert: Alert) -> bytes:
    """Returns the alert as one line of ASCII JSON, its newline included."""
    return encode_line(dict(alert))


def without_secrets(alert: Alert) -> dict[str, Any]:
    """Returns an alert for where more people read than may see it: what processes wrote, and their arguments, are left out."""
    found = _without_secrets(alert)
    assert isinstance(found, dict)
    return found


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_secrets(item) for key, item in value.items() if key.rpartition(".")[2] not in SECRET}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value
