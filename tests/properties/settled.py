"""What the engine does otherwise today, known by a test in test_regressions that fails: random cases leave it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policyd.program import And, CompiledPolicy, Expr, Not, Op, Or, Overlap, Quantified, Test
from tests.properties.streams import Move


def waits(policy: CompiledPolicy, moves: Sequence[Move]) -> bool:
    """Whether the two are known to differ about something in this policy."""
    cut = any(move.cut for move in moves)
    tests = list(_tests(policy))
    counts = [step.times is not None for step in policy.steps]
    every = policy.mode.overlap is Overlap.ALL
    benign = any(not state.accepting and not state.transitions for state in policy.states)
    first = [counts[way.step] for way in policy.states[0].transitions]
    return (
        (cut and any(test.op is Op.EXISTS for test in tests))
        or any(test.field.name.startswith("ancestor[") for test in tests)
        or (cut and any(step.times is not None and step.times.distinct for step in policy.steps))
        or (every and (benign or any(first)))
        or (any(first) and len(first) > 1)
        or any(counts[way.step] for state in policy.states for way in state.transitions[:-1])
    )


def _tests(policy: CompiledPolicy) -> Iterator[Test]:
    for step in policy.steps:
        yield from _tests_in(step.condition)
    for exemption in policy.exemptions:
        yield from _tests_in(exemption.condition)


def _tests_in(expr: Expr) -> Iterator[Test]:
    match expr:
        case Test():
            yield expr
        case Not(item) | Quantified(_, item):
            yield from _tests_in(item)
        case And(items) | Or(items):
            for item in items:
                yield from _tests_in(item)
