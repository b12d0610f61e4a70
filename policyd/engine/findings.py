"""From a partial to what is reported of it."""

from __future__ import annotations

from typing import Any

from policyd.engine.ids import finding_id
from policyd.engine.moment import Moment
from policyd.engine.outputs import Excepted, Match, StepDone, StepEvidence
from policyd.engine.partials import Partial
from policyd.program import Exemption


def match(partial: Partial, moment: Moment) -> Match:
    """Reports that a policy's sequence is complete."""
    return Match(*_facts("Match", partial, moment))


def step_done(partial: Partial, moment: Moment) -> StepDone:
    """Reports that the last step of the partial's trail is met."""
    return StepDone(*_facts("StepDone", partial, moment))


def excepted(partial: Partial, moment: Moment, exemption: Exemption) -> Excepted:
    """Reports a match that was held back."""
    return Excepted(*(*_facts("Excepted", partial, moment), exemption))


def _facts(kind: str, partial: Partial, moment: Moment) -> tuple[Any, ...]:
    # In the order of Finding's fields; by name, it takes a dict and twice as long.
    run, event = partial.run, moment.event
    policy, bindings = run.table.policy, partial.bindings
    return (
        policy,
        moment.generation,
        partial.key,
        event.actor,
        event,
        tuple([StepEvidence(policy.steps[t.step], t.step, t.events, t.count) for t in partial.trail]),
        bindings,
        partial.started_ns,
        moment.now_ns,
        partial.losses_before != moment.losses,
        partial.evicted_before != run.evicted,
        partial.doubtful or run.table.handlers_doubtful(event, bindings),
        finding_id(kind, policy, partial.key, [trace.event for trace in partial.trail if trace.event is not None]),
    )
