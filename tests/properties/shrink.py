"""Makes a failing case small: tries simpler ones as long as they fail too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from policyd.program import And, CompiledPolicy, Expr, KeyKind, Mode, Not, Or, Quantified, State, Step, Transition
from tests.properties.cases import Case, Difference
from tests.properties.programs import hashed
from tests.properties.streams import Move

_T = TypeVar("_T")
Compare = Callable[[Case], Difference | None]


def shrink(failed: Difference, compare: Compare, tries: int = 20_000) -> Difference:
    """Returns the smallest failing case found within so many tries."""
    left = tries
    progress = True
    while progress and left:
        progress = False
        for simpler in _simpler(failed.case):
            left -= 1
            found = compare(simpler)
            if found is not None:
                failed, progress = found, True
                break
            if not left:
                break
    return failed


def _simpler(case: Case) -> Iterator[Case]:
    """Cases with one thing less, those that take most away first."""
    if len(case.policies) > 1:
        for at in range(len(case.policies)):
            yield replace(case, policies=_without(case.policies, at))
    size = len(case.moves)
    chunk = size // 2
    while chunk:
        for start in range(0, size, chunk):
            yield replace(case, moves=case.moves[:start] + case.moves[start + chunk :])
        chunk //= 2
    for at, policy in enumerate(case.policies):
        for simpler in _simpler_policies(policy):
            yield replace(case, policies=(*case.policies[:at], hashed(simpler), *case.policies[at + 1 :]))
    if case.split != 1000:
        yield replace(case, split=1000)
    for at, move in enumerate(case.moves):
        for simpler_move in _simpler_moves(move):
            yield replace(case, moves=(*case.moves[:at], simpler_move, *case.moves[at + 1 :]))


def _without(items: tuple[_T, ...], at: int) -> tuple[_T, ...]:
    return (*items[:at], *items[at + 1 :])


def _simpler_moves(move: Move) -> Iterator[Move]:
    if move.who:
        yield replace(move, who=0)
    if move.cut:
        yield replace(move, cut=0)
    if move.pause_ms:
        yield replace(move, pause_ms=0)
    for at, (name, value) in enumerate(move.fields):
        if value is not None and move.what != "exec" and name != "created":
            yield replace(move, fields=(*move.fields[:at], (name, None), *move.fields[at + 1 :]))


def _simpler_policies(policy: CompiledPolicy) -> Iterator[CompiledPolicy]:
    for at in range(len(policy.untils)):
        yield replace(policy, untils=_without(policy.untils, at))
    for at in range(len(policy.exemptions)):
        yield replace(policy, exemptions=_without(policy.exemptions, at))
    if len(policy.handlers) > 1:
        yield replace(policy, handlers=policy.handlers[:1])
    if policy.mode != Mode():
        yield replace(policy, mode=Mode())
    if policy.key is not KeyKind.PROCESS:
        steps = tuple(replace(step, key=()) for step in policy.steps)
        yield replace(policy, key=KeyKind.PROCESS, steps=steps)
    yield from _simpler_automata(policy)
    for at, step in enumerate(policy.steps):
        for simpler in _simpler_steps(step):
            yield replace(policy, steps=(*policy.steps[:at], simpler, *policy.steps[at + 1 :]))
    for at, exemption in enumerate(policy.exemptions):
        for condition in _simpler_conditions(exemption.condition):
            changed = replace(exemption, condition=condition)
            exemptions = (*policy.exemptions[:at], changed, *policy.exemptions[at + 1 :])
            yield replace(policy, exemptions=exemptions)


def _simpler_automata(policy: CompiledPolicy) -> Iterator[CompiledPolicy]:
    for at, state in enumerate(policy.states):
        if state.repeats:
            yield _changed(policy, at, replace(state, repeats=()))
        for way in range(len(state.transitions)):
            if len(state.transitions) > 1:
                yield _changed(policy, at, replace(state, transitions=_without(state.transitions, way)))
        # Straight to where the next place leads.
        for way, transition in enumerate(state.transitions):
            for beyond in policy.states[transition.target].transitions:
                ways = list(state.transitions)
                ways[way] = Transition(transition.step, beyond.target)
                yield _changed(policy, at, replace(state, transitions=tuple(ways)))


def _changed(policy: CompiledPolicy, at: int, state: State) -> CompiledPolicy:
    """The policy with one state changed, and without what can't be reached any more."""
    states = (*policy.states[:at], state, *policy.states[at + 1 :])
    reached = {0}
    for number in range(len(states)):
        if number in reached:
            reached |= {way.target for way in states[number].transitions}
    new = {old: number for number, old in enumerate(sorted(reached))}
    used = {way.step for old in new for way in states[old].transitions} | {
        s for old in new for s in states[old].repeats
    }
    used |= {until.step for until in policy.untils}
    handlers = tuple(h for h in policy.handlers if h.step is None or h.step in {policy.steps[u].alias for u in used})
    number_of = {old: number for number, old in enumerate(sorted(used))}
    return replace(
        policy,
        handlers=handlers,
        steps=tuple(policy.steps[old] for old in sorted(used)),
        states=tuple(
            replace(
                states[old],
                transitions=tuple(Transition(number_of[w.step], new[w.target]) for w in states[old].transitions),
                repeats=tuple(number_of[step] for step in states[old].repeats),
            )
            for old in new
        ),
        untils=tuple(
            replace(u, step=number_of[u.step], states=tuple(new[s] for s in u.states if s in new))
            for u in policy.untils
        ),
    )


def _simpler_steps(step: Step) -> Iterator[Step]:
    if step.within_ns is not None:
        yield replace(step, within_ns=None)
    if step.times is not None:
        yield replace(step, times=None)
        if step.times.distinct is not None:
            yield replace(step, times=replace(step.times, distinct=None))
        if step.times.within_ns is not None:
            yield replace(step, times=replace(step.times, within_ns=None))
        if step.times.count > 2:
            yield replace(step, times=replace(step.times, count=step.times.count - 1))
    for condition in _simpler_conditions(step.condition):
        yield replace(step, condition=condition)


def _simpler_conditions(expr: Expr) -> Iterator[Expr]:
    if expr != And(()):
        yield And(())
    match expr:
        case Not(item):
            yield item
            yield from (Not(simpler) for simpler in _simpler_conditions(item))
        case And(items) | Or(items) if items:
            yield from items
            for at, item in enumerate(items):
                for simpler in _simpler_conditions(item):
                    yield type(expr)((*items[:at], simpler, *items[at + 1 :]))
        case Quantified(_, item):
            for simpler in _simpler_conditions(item):
                yield replace(expr, item=simpler)
