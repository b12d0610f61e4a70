"""The engine equals a plain matcher on random policies and streams, however the stream is cut into batches."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.engine.machine import Machine
from policyd.engine.outputs import Match, Output
from policyd.engine.partials import Limits
from policyd.program import And, CompiledPolicy, Expr, KeyKind, Not, Op, Or, State, Step, Transition
from tests.support.playbook import Play, Proc
from tests.support.programs import eq, policy, step, test
from tests.support.reference import Found, Reference

SECOND = 1_000_000_000

_ATOMS: list[Expr] = [
    eq("path", "/a"),
    eq("path", "/b"),
    test("path", Op.MATCH, ("[ab]",)),
    test("path", Op.ENDSWITH, ("c", "b")),
    eq("uid", 0),
    test("ret", Op.LT, 0),
    test("ret", Op.EQ, "$uid"),
    test("path", Op.EQ, "$s0:path"),
    test("path", Op.NE, "$s1:path"),
    test("parent.uid", Op.EQ, 0),
    test("mode", Op.HAS, 1),
    And(()),
]
_exprs = st.recursive(
    st.sampled_from(_ATOMS),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=2).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=2).map(tuple)),
    ),
    max_leaves=3,
)


@st.composite
def _policies(draw: st.DrawFn) -> CompiledPolicy:
    steps: list[Step] = []
    for index in range(draw(st.integers(1, 4))):
        events = draw(st.sampled_from(["open", "open", "write", "open|write", "chmod|open", "exit"]))
        within = draw(st.sampled_from([None, None, SECOND, 3 * SECOND]))
        steps.append(step(events, draw(_exprs), alias=f"s{index}", within_ns=within))
    # Places in a row, each with one or two ways forward, and perhaps a repeat.
    count = draw(st.integers(1, 3))
    numbers = st.integers(0, len(steps) - 1)
    states = []
    for state in range(count):
        ways = draw(st.lists(st.builds(Transition, numbers, st.integers(state + 1, count)), min_size=1, max_size=2))
        repeats = draw(st.lists(numbers, max_size=1, unique=True)) if state else []
        states.append(State(tuple(ways), tuple(repeats)))
    states.append(State(accepting=True))
    key = draw(st.sampled_from((KeyKind.PROCESS, KeyKind.TREE)))
    name = draw(st.sampled_from("pqr"))
    return policy(name, *steps, states=tuple(states), key=key, within_s=draw(st.sampled_from([1, 4, 60])))


@st.composite
def _streams(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    what = st.tuples(
        st.sampled_from(["open", "open", "open", "write", "chmod", "exit", "fork", "lost"]),
        st.integers(0, 4),  # which process
        st.sampled_from(["/a", "/b", "/c", None]),
        st.sampled_from([0, 0, 0.1, 1, 1.5, -0.5]),  # seconds after the event before
        st.sampled_from([0, -1, 1000]),
    )
    return draw(st.lists(what, max_size=25))


def _played(stream: list[tuple[Any, ...]]) -> Play:
    play = Play()
    procs: list[Proc] = [play.process(uid=0), play.process(uid=1000)]
    seconds = 10.0
    for what, who, path, pause, ret in stream:
        actor = procs[who % len(procs)]
        seconds += pause
        match what:
            case "fork":
                procs.append(play.fork(actor, at=seconds))
            case "exit":
                play.exit(actor, at=seconds)
            case "lost":
                play.lost(at=seconds)
            case "chmod":
                play.event("chmod", actor, at=seconds, path=path, mode=1, ret=ret)
            case _:
                play.event(what, actor, at=seconds, path=path, ret=ret)
    return play


def _found(outputs: list[Output]) -> list[Found]:
    found: list[Found] = []
    for output in outputs:
        if isinstance(output, Match):
            ids = tuple(tuple(e.id for e in evidence.events) for evidence in output.trail)
            counts = tuple(evidence.count for evidence in output.trail)
            found.append((output.policy.name, output.key, ids, counts, output.tainted))
    return found


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_policies(), min_size=1, max_size=3), _streams())
def test_engine_equals_the_plain_matcher(policies: list[CompiledPolicy], stream: list[tuple[Any, ...]]) -> None:
    engine = Machine(Limits(evidence_events=10_000))
    engine.load(policies, 1)
    batch = _played(stream).batch()
    plain = Reference(policies)
    assert _found(engine.feed(batch)) == plain.feed(batch)
    assert engine.stats()["partials"] == len(plain.runs)
    assert engine.stats()["malformed"] == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_policies(), min_size=1, max_size=3), _streams(), st.integers(1, 7), st.integers(1, 4))
def test_any_split_into_batches_gives_the_same_outputs(
    policies: list[CompiledPolicy], stream: list[tuple[Any, ...]], size: int, bound: int
) -> None:
    # Bounds so low that evictions happen, and those must not depend on the split either.
    limits = Limits(max_partials=bound, evidence_events=3, row_entries=2)
    outcomes = []
    for cut in (size, len(stream) + 1):
        engine = Machine(limits)
        engine.load(policies, 1)
        outputs = [output for batch in _played(stream).batches(cut) for output in engine.feed(batch)]
        stats = {k: v for k, v in engine.stats().items() if not k.startswith(("row_", "actor_"))}
        outcomes.append((outputs, stats))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_policies(), min_size=2, max_size=3), _streams(), st.integers(1, 7))
def test_reload_anywhere_keeps_each_match_of_an_unchanged_policy_once(
    policies: list[CompiledPolicy], stream: list[tuple[Any, ...]], size: int
) -> None:
    kept, *others = policies
    kept = dataclasses.replace(kept, name="kept")  # two of one name and hash could not be told apart
    alone = Machine()
    alone.load([kept], 1)
    wanted = [o.id for b in _played(stream).batches(size) for o in alone.feed(b) if isinstance(o, Match)]
    engine = Machine()
    seen = []
    for number, batch in enumerate(_played(stream).batches(size)):
        # The others come and go, so that every bit of the kept one moves.
        loaded = [*others, kept] if number % 2 else [kept]
        engine.load(loaded, number)
        mine = len(loaded) - 1
        seen += [o.id for o in engine.feed(batch) if isinstance(o, Match) and o.policy is loaded[mine]]
    assert seen == wanted
