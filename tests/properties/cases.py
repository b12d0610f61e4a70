"""A case: policies and a stream. Both matchers run it, and where they differ the report has all that is needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import TypeAlias
from unittest import mock

from execray.wire.frames import Batch
from policyd.compiler import automaton, compile_source
from policyd.engine.machine import Machine
from policyd.engine.outputs import Excepted, Finding, Match, Output, SensorLoss, StepDone
from policyd.engine.partials import Limits
from policyd.program import CompiledPolicy
from tests.properties import texts
from tests.properties.programs import SECOND, describe, hashed, random_policy
from tests.properties.simpler import simpler_policies
from tests.properties.simpler_texts import simpler
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
    "execs",
    "benign",
    "quantifiers",
    "truncated",
    "fields",
    "until",
    "exemptions",
    "first",
    "all",
    "times",
    "distinct",
)
#: What may happen in a stream.
STREAMS: tuple[str, ...] = ("missing", "cuts", "late", "losses", "exits", "forks", "reuse", "orphans")
#: The share of cases whose policies are compiled from text.
TEXTS = 0.25
#: Outputs, and how many partials are left at the end and at some instants after it.
Result: TypeAlias = tuple[tuple[Found, ...], tuple[int, ...]]
#: Never reached by these streams, so that bounds decide nothing here.
NO_BOUNDS = Limits(evidence_events=10_000)


@dataclass(frozen=True)
class Case(ABC):
    """What both matchers are given: policies and a stream. split: how many events a batch holds."""

    moves: tuple[Move, ...]
    split: int = 1000

    def batches(self) -> list[Batch]:
        """Returns the stream."""
        return play(self.moves).batches(self.split)

    @abstractmethod
    def programs(self) -> tuple[CompiledPolicy, ...] | None:
        """Returns the policies, None where they don't compile."""

    @abstractmethod
    def shown(self) -> str:
        """Returns the policies for people."""

    @abstractmethod
    def simpler_policies(self) -> Iterator[Case]:
        """Yields the case with one thing less in its policies."""


@dataclass(frozen=True)
class ProgramCase(Case):
    """Compiled policies."""

    policies: tuple[CompiledPolicy, ...] = ()

    def programs(self) -> tuple[CompiledPolicy, ...]:
        return self.policies

    def shown(self) -> str:
        return "\n".join(describe(policy) for policy in self.policies)

    def simpler_policies(self) -> Iterator[Case]:
        for at, policy in enumerate(self.policies):
            if len(self.policies) > 1:
                yield replace(self, policies=(*self.policies[:at], *self.policies[at + 1 :]))
            for smaller in simpler_policies(policy):
                yield replace(self, policies=(*self.policies[:at], hashed(smaller), *self.policies[at + 1 :]))


@dataclass(frozen=True)
class TextCase(Case):
    """Policies as text."""

    texts: tuple[texts.Policy, ...] = ()

    def programs(self) -> tuple[CompiledPolicy, ...] | None:
        return _compiled(self.shown())

    def shown(self) -> str:
        return texts.render(self.texts)

    def simpler_policies(self) -> Iterator[Case]:
        for smaller in simpler(self.texts):
            yield replace(self, texts=smaller)


@lru_cache(maxsize=4)
def _compiled(text: str) -> tuple[CompiledPolicy, ...] | None:
    compilation = compile_source(text, "random.policy")
    return compilation.policies if compilation.ok else None


@dataclass(frozen=True)
class Difference:
    """Where two runs of a case disagree. names: of the two; partials: how many each was left with, then and later."""

    case: Case
    names: tuple[str, str]
    found: tuple[tuple[Found, ...], tuple[Found, ...]]
    partials: tuple[tuple[int, ...], tuple[int, ...]]

    def __str__(self) -> str:
        one, other = (set(found) for found in self.found)
        parts = [self.case.shown()]
        parts.append("\n".join(as_json_lines(batch) for batch in self.case.batches()))
        parts.append(f"events in a batch: {self.case.split}")
        parts.append(f"only {self.names[0]}:\n" + _lines(one - other))
        parts.append(f"only {self.names[1]}:\n" + _lines(other - one))
        parts.append("both:\n" + _lines(one & other))
        parts.append(f"partials left: {self.partials[0]}, {self.partials[1]}")
        return "\n\n".join(parts)


def _lines(found: set[Found]) -> str:
    return "\n".join(f"    {item}" for item in sorted(found, key=_order)) or "    nothing"


def random_case(seed: str, also: frozenset[str] = frozenset(), never: frozenset[str] = frozenset()) -> Case:
    """Returns the case of a seed. also: features that it has besides those drawn; never: that it has not."""
    rng = Random(seed)
    case = _random_case(rng, also, never)
    while case.programs() is None:  # a text that doesn't compile
        case = _random_case(rng, also, never)
    return case


def _random_case(rng: Random, also: frozenset[str], never: frozenset[str]) -> Case:
    # Each leaves most features out, at random, so that the others meet more often.
    share = rng.choice((0.15, 0.35, 0.6, 0.9))
    split = rng.choice((1000, 1000, 1, 3))
    large = rng.random() < 0.02  # many policies at once, and time for much to happen
    names = "pqrstuvwxyz"[: 11 if large else rng.choice((1, 1, 1, 2, 3))]
    length = 100 if large else rng.choice((4, 10, 20, 20, 40, 40))
    if rng.random() < TEXTS:
        chosen = frozenset(feature for feature in (*texts.FEATURES, *STREAMS) if rng.random() < share) - never | also
        written = tuple(texts.random_text(rng, chosen, name) for name in names)
        return TextCase(random_moves(rng, chosen, length), split, written)
    chosen = frozenset(feature for feature in (*FEATURES, *STREAMS) if rng.random() < share) - never | also
    policies = tuple(random_policy(rng, chosen, name) for name in names)
    return ProgramCase(random_moves(rng, chosen, length), split, policies)


def run_engine(policies: Sequence[CompiledPolicy], batches: Sequence[Batch], last_ns: int | None = None) -> Result:
    """Returns what the engine finds, in an order of its own, and how many partials are left then and later.

    last_ns: when the stream ends, where that isn't with its last event.
    """
    engine = Machine(NO_BOUNDS)
    engine.load(policies, 1)
    outputs = [output for batch in batches for output in engine.feed(batch)]
    ids = [output.id for output in outputs if isinstance(output, Match)]
    assert len(set(ids)) == len(ids), "each match has an id of its own"
    if last_ns is not None:
        engine.advance_clock(last_ns)
    stats = engine.stats()
    assert stats["malformed"] == stats["evicted"] == 0
    left = [stats["partials"]]
    for time_ns in _afterwards(last_of(batches) if last_ns is None else last_ns):
        engine.advance_clock(time_ns)
        left.append(engine.stats()["partials"])
    found = [_found(output) for output in outputs if not isinstance(output, SensorLoss)]
    assert all(one.event <= other.event for one, other in pairwise(found)), "outputs come in the order of the events"
    return tuple(sorted(found, key=_order)), tuple(left)


def run_reference(policies: Sequence[CompiledPolicy], batches: Sequence[Batch]) -> Result:
    """Returns what the reference finds, likewise."""
    reference = Reference(policies)
    found = [item for batch in batches for item in reference.feed(batch)]
    left = [len(reference.partials)]
    for time_ns in _afterwards(last_of(batches)):
        reference.advance(time_ns)
        left.append(len(reference.partials))
    return tuple(sorted(found, key=_order)), tuple(left)


def last_of(batches: Sequence[Batch]) -> int:
    """Returns the largest time of an event, in ns."""
    return max((row[1] for batch in batches for row in batch.events), default=0)


def _afterwards(last: int) -> list[int]:
    """Instants after the last event at which windows end, in ns: what is left then must be the same, too."""
    return [last + round(seconds * SECOND) for seconds in (0.5, 0.501, 1, 1.001, 1.5, 2, 2.001, 4.001, 61)]


def compare(case: Case) -> Difference | None:
    """Runs engine and reference, and for policies from text the automaton as it was before it was made smaller."""
    policies, batches = case.programs(), case.batches()
    if policies is None:
        return None
    engine = run_engine(policies, batches)
    wanted = run_reference(policies, batches)
    if engine != wanted:
        return _difference(case, ("the engine", "the reference"), engine, wanted)
    if isinstance(case, TextCase):
        with plain_automata():
            plain = _compiled.__wrapped__(case.shown())
        # A mistake in a step that is never reached is one in the plain form only.
        if plain is not None and [policy.states for policy in plain] != [policy.states for policy in policies]:
            whole = run_engine(plain, batches)
            small = _by_place(policies, engine[0]), engine[1]
            if (_by_place(plain, whole[0]), whole[1]) != small:
                return _difference(case, ("the plain automaton", "the minimised one"), whole, engine)
    return None


@contextmanager
def plain_automata() -> Iterator[None]:
    """Within it, the compiler leaves the automata as the text has them."""
    with (
        mock.patch.object(automaton, "minimise", tuple),
        mock.patch.object(automaton, "without_hidden", lambda states, _: tuple(states)),
    ):
        yield


def _by_place(policies: Sequence[CompiledPolicy], found: Sequence[Found]) -> list[Found]:
    """The same, steps numbered by where they stand in the text."""
    steps = {policy.name: policy.steps for policy in policies}
    out = []
    for item in found:
        mine = steps[item.policy]
        places = (replace(taken, step=mine[taken.step].place.line) for taken in item.steps)
        out.append(replace(item, steps=tuple(places)))
    return sorted(out, key=_order)


def _difference(case: Case, names: tuple[str, str], one: Result, other: Result) -> Difference:
    return Difference(case, names, (one[0], other[0]), (one[1], other[1]))


def _order(found: Found) -> tuple[object, ...]:
    # What one event completes has no order that the language fixes.
    return (found.event, found.policy, found.kind, repr(found))


def _found(output: Output) -> Found:
    assert isinstance(output, Finding)
    kind, reason = "step", ""
    if isinstance(output, Match):
        kind = "match"
    elif isinstance(output, Excepted):
        kind, reason = "excepted", output.exemption.reason
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
