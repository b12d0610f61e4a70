"""Events through the real engine, away from a live host: the same matches, and the same alerts held back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from execray.schema.event import actor_get, text
from execray.wire.frames import Batch
from policyd.engine.machine import Machine
from policyd.engine.outputs import Excepted, Match, Output, SensorLoss
from policyd.plan import DEFAULT_THROTTLE, Admission, Plan, plan_of
from policyd.program import CompiledPolicy, Response, Severity


@dataclass(frozen=True, slots=True)
class Found:
    """One match. steps: the ids of the events behind each step, as far as they are kept. bindings: event ids by alias.

    suppressed: `throttle` or `exception` where it would not have alerted. kills: whether it asks for a kill.
    """

    policy: str
    time_ns: int
    event_id: int  # of the event that completed it
    steps: tuple[tuple[int, ...], ...]
    bindings: dict[str, int]
    suppressed: str | None
    severity: Severity
    kills: bool
    enforced: bool  # the policy says `response enforce`; without it a kill is only reported
    process: str

    @property
    def does(self) -> str:
        """`kill`, `would kill`, or nothing beyond the alert."""
        return ("kill" if self.enforced else "would kill") if self.kills else ""

    def to_json(self) -> dict[str, Any]:
        """Returns the line that `replay --json` prints."""
        return {
            "policy": self.policy,
            "time_ns": self.time_ns,
            "steps": [list(ids) for ids in self.steps],
            "bindings": self.bindings,
            "suppressed": self.suppressed,
        }


class Replay:
    """Runs policies over batches. Knows nothing of the host: no mode, no enforcer, nothing is done to anybody."""

    def __init__(self, policies: Sequence[CompiledPolicy], throttle: tuple[int, int] = DEFAULT_THROTTLE) -> None:
        """throttle: the host's, for policies that name none. Raises policyd.patterns.PatternError."""
        self.machine = Machine()
        self.machine.load(policies, 1)
        self.lost = 0
        self._admission = Admission(throttle)

    def run(self, batches: Iterable[Batch], observe: Callable[[Output], None] | None = None) -> Iterator[Found]:
        """Yields the matches, in order. observe: called with every output of the engine."""
        for batch in batches:
            for output in self.machine.feed(batch):
                if observe is not None:
                    observe(output)
                match output:
                    case Match() | Excepted():
                        yield self._found(output)
                    case SensorLoss(count=count):
                        self.lost += count

    def _found(self, output: Match | Excepted) -> Found:
        plan = plan_of(output) if isinstance(output, Match) else Plan(None)
        suppressed = None if isinstance(output, Match) else "exception"
        if (plan.severity is not None or plan.notices) and self._admission.admit(output, plan) is None:
            suppressed = "throttle"
        name = actor_get(output.actor, "exe")
        return Found(
            policy=output.policy.name,
            time_ns=output.time_ns,
            event_id=output.event.id,
            steps=tuple(tuple(event.id for event in evidence.events) for evidence in output.trail),
            bindings={alias: event.id for alias, event in output.bindings.items() if alias.isprintable()},
            suppressed=suppressed,
            severity=output.policy.meta.severity if plan.severity is None else plan.severity,
            kills=plan.kill and not output.partial_evidence,
            enforced=output.policy.response is Response.ENFORCE,
            process=f"{text(name) if isinstance(name, bytes) else '?'}[{output.actor.id[0]}]",
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """A match that only one of two sets of policies gives. new: only the second one does."""

    new: bool
    found: Found


def differences(before: Iterable[Found], after: Iterable[Found]) -> list[Difference]:
    """Returns what differs between two sets' alerts on the same events: kills first, then by severity and time."""
    first = {(found.policy, found.event_id, found.steps): found for found in before if found.suppressed is None}
    second = {(found.policy, found.event_id, found.steps): found for found in after if found.suppressed is None}
    out = [Difference(False, found) for key, found in first.items() if key not in second]
    out += [Difference(True, found) for key, found in second.items() if key not in first]
    # The same match, that kills in one set only, differs too.
    for key in first.keys() & second.keys():
        if first[key].does != second[key].does:
            out += [Difference(False, first[key]), Difference(True, second[key])]
    return sorted(out, key=_weight)


def _weight(difference: Difference) -> tuple[int, int, int, bool]:
    found = difference.found
    return ("kill", "would kill", "").index(found.does), -found.severity, found.time_ns, difference.new
