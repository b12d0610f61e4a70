"""From a policy's `notify` to the request that its action plug-in gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from execray.plugins import ActionRequest, Argument, Process
from execray.schema.event import actor_get, kind_to_json, text
from policyd.alerts import Json, Origin, wall_clock
from policyd.engine.conditions import read
from policyd.engine.outputs import Finding, Match
from policyd.program import Constant, FieldRef, Notify, Severity

#: Hands a request to the action plug-in of that name, without waiting for it; returns what became of it, in one word.
Tell: TypeAlias = Callable[[str, ActionRequest], str]

#: What became of a `notify`.
QUEUED: Final = "queued"
DROPPED: Final = "dropped"  # the plug-in was too far behind
NOT_ALLOWED: Final = "not_allowed"  # the host's configuration doesn't list it


class Notices:
    """What policies notify: collected while orders go out, and handed on after them."""

    def __init__(self, tell: Tell | None, host_mode: str) -> None:
        """tell: None where no plug-in is allowed."""
        self.counts: dict[str, int] = {}  # since start, by what became of them
        self._tell = tell or (lambda _name, _request: NOT_ALLOWED)
        self.host_mode = host_mode
        self._waiting: list[tuple[Notify, Finding, Origin, Severity, int, list[Json]]] = []

    def add(
        self, notices: Sequence[Notify], finding: Finding, origin: Origin, severity: Severity, suppressed: int
    ) -> Sequence[Json]:
        """Takes the notices of one finding; returns what send() will fill in: for the alert, what became of each."""
        told: list[Json] = []
        self._waiting += [(notice, finding, origin, severity, suppressed, told) for notice in notices]
        return told

    def send(self) -> None:
        """Hands on all that were added since the last call."""
        waiting, self._waiting = self._waiting, []
        for notice, finding, origin, severity, suppressed, told in waiting:
            request = request_of(notice, finding, origin, severity, host_mode=self.host_mode, suppressed=suppressed)
            result = self._tell(notice.plugin, request)
            self.counts[result] = self.counts.get(result, 0) + 1
            told.append({"plugin": notice.plugin, "result": result})


def request_of(
    notice: Notify, finding: Finding, origin: Origin, severity: Severity, *, host_mode: str, suppressed: int
) -> ActionRequest:
    """Returns the request, its arguments read from the finding's events. suppressed: as of an alert."""
    pid, start_ns = finding.actor.id
    exe, uid = actor_get(finding.actor, "exe"), actor_get(finding.actor, "uid")
    return ActionRequest(
        alert_id=finding.id,
        policy=finding.policy.name,
        kind="match" if isinstance(finding, Match) else "step",
        severity=severity.name.lower(),
        time=wall_clock(finding.time_ns),
        process=Process(
            pid,
            start_ns,
            origin.boot_id,
            text(exe) if isinstance(exe, bytes) else "",
            uid if isinstance(uid, int) else None,
        ),
        arguments={key: _argument(value, finding) for key, value in notice.arguments},
        mode=host_mode,
        response=finding.policy.response.value,
        suppressed=suppressed,
        tainted=finding.tainted,
        partial_evidence=finding.partial_evidence,
    )


def _argument(value: Constant | FieldRef, finding: Finding) -> Argument:
    match value:
        case FieldRef():
            return kind_to_json(value.kind, read(value, finding.event, finding.bindings))
        case bytes():
            return text(value)
        case int():
            return value
    return str(value)
