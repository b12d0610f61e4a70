"""From a partial to what is reported of it."""

from __future__ import annotations

from typing import Any

from policyd.engine.moment import Moment
from policyd.engine.outputs import Excepted, Match, StepDone, StepEvidence, finding_id
from policyd.engine.partials import Partial
from policyd.program import Exemption


def match(partial: Partial, moment: Moment) -> Match:
    """Reports that a policy's sequence is complete."""
    return Match(**_facts("Match", partial, moment))


def step_done(partial: Partial, moment: Moment) -> StepDone:
    """Reports that the last step of the partial's trail is met."""
    return StepDone(**_facts("StepDone", partial, moment))


def excepted(partial: Partial, moment: Moment, exemption: Exemption) -> Excepted:
    """Reports a match that was held back."""
    return Excepted(exemption=exemption, **_facts("Excepted", partial, moment))


def _facts(kind: str, partial: Partial, moment: Moment) -> dict[str, Any]:
    run = partial.run
    policy, bindings = run.table.policy, partial.bindings
    met = [trace.event for trace in partial.trail if trace.event is not None]
    return {
        "policy": policy,
        "generation": moment.generation,
        "key": partial.key,
        "actor": moment.event.actor,
        "event": moment.event,
        "trail": tuple(StepEvidence(policy.steps[t.step], t.step, t.events, t.count) for t in partial.trail),
        "bindings": bindings,
        "started_ns": partial.started_ns,
        "time_ns": moment.now_ns,
        "tainted": partial.losses_before != moment.losses,
        "degraded": partial.evicted_before != run.evicted,
        "partial_evidence": partial.doubtful or run.table.handlers_doubtful(moment.event, bindings),
        "id": finding_id(kind, policy, partial.key, met),
    }
