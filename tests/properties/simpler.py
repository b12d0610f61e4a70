"""What is simpler than a compiled policy, by one thing each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from policyd.program import And, CompiledPolicy, Expr, KeyKind, Mode, Not, Or, Quantified, State, Step, Transition

_T = TypeVar("_T")


def _without(items: tuple[_T, ...], at: int) -> tuple[_T, ...]:
    return (*items[:at], *items[at + 1 :])


def simpler_policies(policy: CompiledPolicy) -> Iterator[CompiledPolicy]:
    """Yields policies with one thing less."""
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
