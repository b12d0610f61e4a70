"""Why a policy did not match: for each of its steps the event that met it, or the one that came nearest and what it lacked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from execray.schema.event import Event
from policyd.engine.conditions import Bindings, condition, conjuncts
from policyd.program import And, CompiledPolicy, Expr, Not, Or, Quantified, Step, Test

_NEGATED: Final = re.compile(r"\S+ (not |!~)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One step against a stream. event: what met it, or came nearest; None where no event of its kind was there.

    failed: the conditions that did not hold for that event; empty where it met the step. count: events of its kind.
    """

    number: int
    step: Step
    event: Event | None
    failed: tuple[str, ...]
    count: int

    @property
    def met(self) -> bool:
        """Whether some event met the step."""
        return self.event is not None and not self.failed

    def to_json(self) -> dict[str, Any]:
        """Returns it for `--json`."""
        return {
            "step": self.number + 1,
            "alias": self.step.alias,
            "text": self.step.text,
            "met": self.met,
            "event": None if self.event is None else self.event.to_json(),
            "failed": list(self.failed),
            "candidates": self.count,
        }


def explain(policy: CompiledPolicy, events: Iterable[Event]) -> list[Verdict]:
    """Looks at each step by itself, in the order of the text: an event may meet a later step before an earlier one is met.

    A condition that reads an earlier step is judged with the event that met that step, as far as one did.
    """
    stream = list(events)
    bindings: dict[str, Event] = {}
    verdicts = []
    untils = {until.step for until in policy.untils}
    for number, step in enumerate(policy.steps):
        if number in untils:
            continue
        verdict = _judge(number, step, stream, bindings)
        verdicts.append(verdict)
        if verdict.met and verdict.event is not None and step.alias:
            bindings[step.alias] = verdict.event
    return verdicts


def _judge(number: int, step: Step, stream: Sequence[Event], bindings: Bindings) -> Verdict:
    best: tuple[int, Event, tuple[str, ...]] | None = None
    candidates = [event for event in stream if event.type.code in step.codes]
    for event in candidates:
        failed = tuple(text for text, holds in judged(step, event, bindings) if not holds)
        if best is None or len(failed) < best[0]:
            best = len(failed), event, failed
        if not failed:
            break
    if best is None:
        return Verdict(number, step, None, (), 0)
    return Verdict(number, step, best[1], best[2], len(candidates))


def judged(step: Step, event: Event, bindings: Bindings) -> list[tuple[str, bool]]:
    """Returns each condition of a step as text, with whether it holds for an event."""
    return [(describe(part), condition(part)(event, bindings)) for part in conjuncts(step.condition)]


def describe(expr: Expr) -> str:
    """Returns a condition as text, as near to the source as is known."""
    match expr:
        case Test():
            return expr.text or f"{expr.field.name} {expr.op.value}"
        case Not(Test(text=text)) if _NEGATED.match(text):
            return text  # written as one comparison: `x not in ...`
        case Not(item):
            return f"not ({describe(item)})"
        case And(items):
            return " and ".join(describe(item) for item in items)
        case Or(items):
            return "(" + " or ".join(describe(item) for item in items) + ")"
        case Quantified():
            return expr.text or f"{'all' if expr.every else 'any'} {expr.field.name}(...)"
