"""What a finding asks for, and whether its alert is one too many: what is the same live and in a replay."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from execray.schema.event import actor_get
from policyd.engine.conditions import read
from policyd.engine.keys import compact
from policyd.engine.outputs import Finding, Match, StepDone, handler_applies
from policyd.program import Alert, Capture, KeyKind, Kill, Log, Notify, Severity
from policyd.throttle import Throttle

#: Of a policy that names none: N alerts per that many nanoseconds.
DEFAULT_THROTTLE: Final = (1, 60_000_000_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the handlers of a policy ask for."""

    severity: Severity | None  # None: no alert
    kill: bool = False
    capture: Capture | None = None
    log: bool = False
    notices: tuple[Notify, ...] = ()


def plan_of(finding: Match | StepDone) -> Plan:
    """Returns what the handlers that apply ask for, taken together: one alert at most, of the highest severity.

    A match of a policy without `on match` alerts, and so does a kill: nobody should have to guess why a process died.
    """
    # One plain loop, for a kill waits for it: run once in a while, each comprehension costs what it takes to fetch its code.
    own = finding.policy.meta.severity
    severity: Severity | None = None
    kill = log = False
    capture: Capture | None = None
    notices: dict[Notify, None] = {}
    unhandled = isinstance(finding, Match)
    for handler in finding.policy.handlers:
        if handler.step is None:
            unhandled = False
        if not handler_applies(handler, finding):
            continue
        for action in handler.actions:
            match action:
                case Kill():
                    kill = True
                case Alert(asked):
                    asked = own if asked is None else asked
                    severity = asked if severity is None else max(severity, asked)
                case Capture():
                    capture = action if capture is None else capture
                case Log():
                    log = True
                case Notify():
                    notices[action] = None
    if severity is None and (kill or unhandled):
        severity = own
    return Plan(severity, kill, capture, log, tuple(notices))


class Admission:
    """Lets an alert through, or holds it back, by its policy's throttle."""

    def __init__(self, default: tuple[int, int] = DEFAULT_THROTTLE) -> None:
        """default: for policies that name no throttle of their own."""
        self.throttle = Throttle()
        self._default = default

    def admit(self, finding: Finding, plan: Plan) -> int | None:
        """Returns how many were held back since the last one let through, or None: hold this one back too."""
        limit, per_ns = finding.policy.throttle
        if finding.policy.throttle == DEFAULT_THROTTLE and finding.policy.throttle_by is None:
            limit, per_ns = self._default
        # An alert of a match that could not be acted on must not hold back the one that tells of the kill; nor what only a
        # plug-in is told, an alert.
        kinds = (plan.kill and not finding.partial_evidence, plan.severity is None)
        key = (finding.policy.name, isinstance(finding, Match), kinds, *_throttle_key(finding))
        return self.throttle.admit(key, limit, per_ns, finding.time_ns)


def _throttle_key(finding: Finding) -> tuple[Hashable, ...]:
    """Returns what alerts are counted by: the values the policy names, of the completing event; else the policy's key.

    Of one whose key is the process, that and its program: one that runs another is told of again.
    """
    by = finding.policy.throttle_by
    if by is None and finding.policy.key is KeyKind.PROCESS:
        return finding.actor.id, actor_get(finding.actor, "exe")
    if by is None:
        return tuple(finding.key)
    return tuple(compact(read(ref, finding.event, finding.bindings)) for ref in by)
