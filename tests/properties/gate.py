"""The gate's soundness: the engine finds the same in the events that the gate passes as in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from execray.gate.encoding import decode_plan
from execray.schema.catalog import LOST
from execray.schema.event import Event
from execray.wire.frames import Batch
from policyd.engine.machine import Machine
from policyd.engine.table import PolicyTable
from policyd.gate.plan import build_plan
from policyd.gate.twin import Gate, passes
from policyd.gate.ways import ALWAYS
from policyd.program import CompiledPolicy
from tests.properties.cases import NO_BOUNDS, Case, Difference, last_of, random_case, run_engine

#: A late event is taken at the clock, which the events before it have set: without them it would be another one.
NEVER = frozenset({"late"})
KERNEL = frozenset({"kernel"})


def gate_case(seed: str) -> Case:
    """Returns a case whose conditions and events are of the kind that the kernel can tell apart."""
    return random_case(seed, KERNEL, NEVER)


def address_case(seed: str) -> Case:
    """The same of conditions on addresses."""
    return random_case(seed, KERNEL | {"addresses"}, NEVER)


def tables_of(policies: Sequence[CompiledPolicy]) -> list[PolicyTable]:
    """Returns the tables of a loaded set."""
    tables, base = [], 0
    for policy in policies:
        tables.append(PolicyTable(policy, base))
        base += len(policy.steps)
    return tables


def compare_stateless(case: Case) -> Difference | None:
    """Compares all events with those that could meet some step at all."""
    policies = case.programs()
    if policies is None:
        return None
    plan = decode_plan(build_plan(tables_of(policies)).raw)
    return _compare(case, policies, lambda event: passes(plan, event))


def compare_awaited(case: Case) -> Difference | None:
    """Compares all events with those that could meet a step which is awaited."""
    policies = case.programs()
    if policies is None:
        return None
    plan = decode_plan(build_plan(tables_of(policies)).raw)
    gate = Gate(plan, since_ns=-(10**12))  # everything began before the stream, and is over
    return _compare(case, policies, gate.passes)


def _compare(case: Case, policies: Sequence[CompiledPolicy], wanted: Callable[[Event], bool]) -> Difference | None:
    batches = case.batches()
    passed = list(passed_of(batches, wanted))
    last_ns = last_of(batches)
    whole, part = run_engine(policies, batches, last_ns), run_engine(policies, passed, last_ns)
    if whole == part:
        return None
    return Difference(case, ("all events", "those that pass"), (whole[0], part[0]), (whole[1], part[1]))


def passed_of(batches: Sequence[Batch], wanted: Callable[[Event], bool]) -> Iterator[Batch]:
    """Yields the events that pass, each in a batch of its own, so that it keeps its id; losses always do."""
    for batch in batches:
        for position, row in enumerate(batch.events):
            if row[0] == LOST or wanted(batch.event(position)) or row[0] in ALWAYS:
                yield Batch(batch.seq, batch.first_id + position, batch.strings, batch.actors, (row,))


def compare_reloads(seed: str) -> tuple[list[str], list[str], str]:
    """Returns what one policy finds while others come and go: with all events, and with a gate that gets a new plan each time."""
    rng = Random(seed)
    case, others = gate_case(seed), gate_case(f"{seed}:others").programs() or ()
    policies = case.programs() or ()
    batches = case.batches()
    every = [
        Batch(b.seq, b.first_id + at, b.strings, b.actors, (row,)) for b in batches for at, row in enumerate(b.events)
    ]
    turns = sorted(rng.randrange(len(every) + 1) for _ in range(rng.randint(1, 3)))
    found = [_run(policies, others, every, turns, gated) for gated in (False, True)]
    return found[0], found[1], case.shown()


def _run(
    policies: Sequence[CompiledPolicy],
    others: Sequence[CompiledPolicy],
    every: Sequence[Batch],
    turns: Sequence[int],
    gated: bool,
) -> list[str]:
    engine = Machine(NO_BOUNDS)
    seen: list[str] = []
    gate: Gate | None = None
    names = {policy.name for policy in policies}
    for at, batch in enumerate(every):
        if at == 0 or at in turns:
            strangers = [policy for policy in others if policy.name not in names]
            loaded = [*strangers, *policies] if at and turns.index(at) % 2 == 0 else list(policies)
            engine.load(loaded, at)
            if gated:
                gate = Gate(decode_plan(build_plan(tables_of(loaded)).raw), batch.events[0][1] if at else -(10**12))
        row = batch.events[0]
        if gate is None or row[0] == LOST or gate.passes(batch.event(0)) or row[0] in ALWAYS:
            seen += [repr(output.id) for output in engine.feed(batch) if getattr(output, "policy", None) in policies]
    return seen
