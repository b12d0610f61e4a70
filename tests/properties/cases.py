"""A case: policies and a stream. Both matchers run it, and where they differ the report has all that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from execray.wire.frames import Batch
from policyd.engine.machine import Machine
from policyd.engine.outputs import Finding, Match, Output, SensorLoss, StepDone
from policyd.engine.partials import Limits
from policyd.program import CompiledPolicy
from tests.properties.programs import describe, random_policy
from tests.properties.streams import Move, as_json_lines, play, random_moves
from tests.support.reference import Reference
from tests.support.reference_partials import Found, Taken

#: What the generators can do and the engine, as it stands, can run.
FEATURES: tuple[str, ...] = (
    "tree",
    "choice",
    "shared steps",
    "repeats",
    "step windows",
    "references",
    "handlers",
    "missing",
    "cuts",
    "late",
    "losses",
    "exits",
    "forks",
    "execs",
    "reuse",
)
#: Never reached by these streams, so that bounds decide nothing here.
NO_BOUNDS = Limits(evidence_events=10_000)


@dataclass(frozen=True)
class Case:
    """What both matchers are given. split: how many events a batch holds."""

    policies: tuple[CompiledPolicy, ...]
    moves: tuple[Move, ...]
    split: int = 1000

    def batches(self) -> list[Batch]:
        return play(self.moves).batches(self.split)


@dataclass(frozen=True)
class Difference:
    """Where the two disagree."""

    case: Case
    engine: tuple[Found, ...]
    reference: tuple[Found, ...]
    partials: tuple[int, int] | None = None

    def __str__(self) -> str:
        parts = [describe(policy) for policy in self.case.policies]
        parts.append("\n".join(as_json_lines(batch) for batch in self.case.batches()))
        parts.append(f"events in a batch: {self.case.split}")
        parts.append("only the engine:\n" + _lines(set(self.engine) - set(self.reference)))
        parts.append("only the reference:\n" + _lines(set(self.reference) - set(self.engine)))
        parts.append("both:\n" + _lines(set(self.reference) & set(self.engine)))
        if self.partials:
            parts.append("partials left: engine {}, reference {}".format(*self.partials))
        return "\n\n".join(parts)


def _lines(found: set[Found]) -> str:
    return "\n".join(f"    {item}" for item in sorted(found, key=_order)) or "    nothing"


def random_case(seed: str, features: Sequence[str] = FEATURES) -> Case:
    """Returns the case of a seed. Each leaves most features out, at random, so that the others meet more often."""
    rng = Random(seed)
    share = rng.choice((0.15, 0.35, 0.6, 0.9))
    chosen = frozenset(feature for feature in features if rng.random() < share)
    names = "pqr"[: rng.choice((1, 1, 1, 2, 3))]
    policies = tuple(random_policy(rng, chosen, name) for name in names)
    moves = random_moves(rng, chosen, rng.choice((4, 10, 20, 40)))
    return Case(policies, moves, rng.choice((1000, 1000, 1, 3)))


def run_engine(
    policies: Sequence[CompiledPolicy], batches: Sequence[Batch]
) -> tuple[tuple[Found, ...], dict[str, int]]:
    """Returns what the engine finds, in an order of its own, and its numbers."""
    engine = Machine(NO_BOUNDS)
    engine.load(policies, 1)
    outputs = [output for batch in batches for output in engine.feed(batch)]
    found = [_found(output) for output in outputs if not isinstance(output, SensorLoss)]
    return tuple(sorted(found, key=_order)), engine.stats()


def compare(case: Case) -> Difference | None:
    """Runs both and returns where they differ."""
    batches = case.batches()
    engine, stats = run_engine(case.policies, batches)
    reference = Reference(case.policies)
    wanted = tuple(sorted((item for batch in batches for item in reference.feed(batch)), key=_order))
    partials = stats["partials"], len(reference.partials)
    assert stats["malformed"] == stats["evicted"] == 0
    if engine == wanted and partials[0] == partials[1]:
        return None
    return Difference(case, engine, wanted, partials)


def _order(found: Found) -> tuple[object, ...]:
    # What one event completes has no order that the language fixes.
    return (found.event, found.policy, found.kind, repr(found))


def _found(output: Output) -> Found:
    assert isinstance(output, Finding)
    kind, reason = "step", ""
    if isinstance(output, Match):
        kind = "match"
    else:
        assert isinstance(output, StepDone)
    trail = tuple(Taken(part.step_index, tuple(event.id for event in part.events)) for part in output.trail)
    assert all(part.count == len(part.events) for part in output.trail)
    return Found(
        kind,
        output.policy.name,
        output.event.id,
        output.time_ns,
        output.started_ns,
        trail,
        tuple(sorted((alias, event.id) for alias, event in output.bindings.items())),
        output.partial_evidence,
        output.tainted,
        reason,
    )
