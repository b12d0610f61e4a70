"""What plug-ins are written against: alert sinks and response actions, found by Python entry points (docs/plugins.md).

An entry point names a factory, which takes the plug-in's settings from the host's configuration and returns a Sink or an Action.
The factory's module says for which version of this interface it was written: `EXECRAY_API = 1`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self, TypeAlias

#: Raised when something that a plug-in may rely on changes its meaning or goes away.
API_VERSION: Final = 1
#: The groups of entry points.
SINKS: Final = "execray.sinks"
ACTIONS: Final = "execray.actions"
#: Sinks that are policyd's own.
BUILT_IN_SINKS: Final = ("file", "stdout", "journal")
#: What an entry point, and so a plug-in, may be called.
PLUGIN_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")

Scalar: TypeAlias = str | int | float | bool
Settings: TypeAlias = Mapping[str, Scalar | list[Scalar]]
#: What a policy hands to an action: numbers as numbers, texts as in alerts, list fields as lists, None for what is unknown.
Argument: TypeAlias = str | int | bool | list[str] | None


class Sink(Protocol):
    """One place that alerts are sent to."""

    def write(self, alert: dict[str, Any]) -> None:
        """Delivers one alert (docs/alerts.md). May block for as long as the host allows; any exception counts as failed."""
        ...

    def close(self) -> None:
        """Lets go of what it holds. Called once, after the last write, when policyd ends in order."""
        ...


@dataclass(frozen=True, slots=True)
class Process:
    """The process behind the event at hand. pid and start_ns (CLOCK_BOOTTIME) together name it within a boot; pid alone doesn't.

    exe is "" and uid None where they are unknown.
    """

    pid: int
    start_ns: int
    boot_id: str
    exe: str
    uid: int | None


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """One `notify` of a policy, for one match (kind `match`) or one step (kind `step`).

    alert_id: that of the alert of the same match; the same again where the same events are read twice. time: when the event at
    hand happened, UTC, ISO 8601. mode and response: how far the host and the policy may go, `audit` or `enforce`. suppressed:
    requests of the same policy and process image that the throttle held back since the last one. tainted: events were lost
    meanwhile. partial_evidence: a value that decided was captured only in part.
    """

    alert_id: str
    policy: str
    kind: str
    severity: str
    time: str
    process: Process
    arguments: Mapping[str, Argument]
    mode: str
    response: str
    suppressed: int
    tainted: bool
    partial_evidence: bool

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"process": dataclasses.asdict(self.process), "arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Reads what to_json returned. Raises KeyError or TypeError for anything else."""
        return cls(**{**found, "process": Process(**found["process"])})


class Action(Protocol):
    """One response of a site's own."""

    def act(self, request: ActionRequest) -> None:
        """Does it, once. May block for as long as the host allows; any exception counts as failed."""
        ...


SinkFactory: TypeAlias = Callable[[Settings], Sink]
ActionFactory: TypeAlias = Callable[[Settings], Action]
