"""Typed tree to automaton: places of the text become states; what can't be reached or told apart goes.

A policy is read backwards: each statement is built onto the place that follows it, so that what follows a choice is one
place however it is reached. Construction is linear in the text, and the result is deterministic: transitions are in
text order and the first that an event meets is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from policyd.compiler.typed import Choice, One, Seq, Shape, is_empty, nullable
from policyd.program import And, CompiledPolicy, State, Step, Transition


@dataclass(slots=True, eq=False)
class _Place:
    """A state under construction. Identity is what counts: two places are two states until minimised."""

    transitions: list[tuple[int, _Place]] = field(default_factory=list)
    repeats: tuple[int, ...] = ()
    accepting: bool = False


def build(shape: Shape) -> tuple[State, ...]:
    """Returns the states as the text has them, states[0] the start. Every one of them can be reached.

    shape must not be nullable, unless it is empty; nor may a choice's test or a non-empty `other` be.
    """
    if is_empty(shape):
        return (State(),)
    start = _build(shape, _Place(accepting=True))
    # Before the first step there is no partial to keep evidence in.
    return _numbered(_Place(start.transitions))


def _build(shape: Shape, after: _Place) -> _Place:
    match shape:
        case One(step=step, repeat=""):
            return _Place([(step, after)])
        case One(step=step, repeat=".."):
            return _Place([(step, _repeating(step, after))])
        case One(step=step):
            return _repeating(step, after)
        case Seq(items=items):
            for item in reversed(items):
                after = _build(item, after)
            return after
        case Choice(test=test, then=then, other=other):
            place = _build(test, _build(then, after))
            if is_empty(other):
                return place
            rest = _build(other, after)
            # A `...` at the head of `other` is an event of `other` too: meeting it decides, and goes on behind it.
            repeats = [(step, rest) for step in rest.repeats]
            return _Place([*place.transitions, *rest.transitions, *repeats], place.repeats)


def _repeating(step: int, after: _Place) -> _Place:
    # A match is complete on entering an accepting state, so nothing repeats there.
    return after if after.accepting else _Place(after.transitions, (step, *after.repeats))


def _numbered(start: _Place) -> tuple[State, ...]:
    """Numbers the places breadth first from the start, so text order shows in the numbers."""
    order = [start]
    number = {id(start): 0}
    for place in order:  # grows while it is read
        for _, target in place.transitions:
            if id(target) not in number:
                number[id(target)] = len(order)
                order.append(target)
    return tuple(
        State(
            tuple(Transition(step, number[id(target)]) for step, target in place.transitions),
            place.repeats,
            place.accepting,
        )
        for place in order
    )


def _covers(first: Step, second: Step) -> bool:
    """Whether every event that meets `second` meets `first`, as far as that is plain to see."""
    if first.within_ns is not None or not set(second.codes) <= set(first.codes):
        return False
    return first.condition == And(()) or first.condition == second.condition


def without_hidden(states: Sequence[State], steps: Sequence[Step]) -> tuple[State, ...]:
    """Drops transitions that an earlier one of the same state always forestalls, and what only they reached."""
    kept = []
    for state in states:
        transitions: list[Transition] = []
        for transition in state.transitions:
            if not any(_covers(steps[earlier.step], steps[transition.step]) for earlier in transitions):
                transitions.append(transition)
        kept.append(replace(state, transitions=tuple(transitions)))
    return reachable(kept)


def reachable(states: Sequence[State]) -> tuple[State, ...]:
    """Drops states that the start does not reach and numbers the others anew, breadth first."""
    order, number = [0], {0: 0}
    for index in order:  # grows while it is read
        for transition in states[index].transitions:
            if transition.target not in number:
                number[transition.target] = len(order)
                order.append(transition.target)
    return tuple(
        replace(
            states[index],
            transitions=tuple(Transition(t.step, number[t.target]) for t in states[index].transitions),
        )
        for index in order
    )


def minimise(states: Sequence[State]) -> tuple[State, ...]:
    """Merges states that no sequence of events tells apart, by partition refinement (Moore).

    Two states are the same when they accept alike, repeat the same steps, and their transitions take the same steps in
    the same order to states that are the same. Steps are places in the text, so evidence and aliases stay the same too.
    """
    block = [0] * len(states)
    count = 0
    while True:
        signatures: dict[object, int] = {}
        refined = []
        for index, state in enumerate(states):
            moves = tuple((t.step, block[t.target]) for t in state.transitions)
            signature = (block[index], state.accepting, state.repeats, moves)
            refined.append(signatures.setdefault(signature, len(signatures)))
        block = refined
        if len(signatures) == count:
            break
        count = len(signatures)
    if count == len(states):
        return tuple(states)
    first: dict[int, State] = {}
    for index, state in enumerate(states):
        first.setdefault(block[index], state)
    # Blocks are numbered by their first state, so the start's is 0.
    merged = [
        replace(state, transitions=tuple(Transition(t.step, block[t.target]) for t in state.transitions))
        for _, state in sorted(first.items())
    ]
    return reachable(merged)


def used_steps(states: Sequence[State]) -> list[int]:
    """Returns the numbers of the steps that some state awaits or repeats, ascending."""
    used = {t.step for state in states for t in state.transitions}
    return sorted(used | {step for state in states for step in state.repeats})


def renumber_steps(states: Sequence[State], used: Sequence[int]) -> tuple[State, ...]:
    """Returns the states with step numbers replaced by their places in `used`."""
    number = {step: index for index, step in enumerate(used)}
    return tuple(
        State(
            tuple(Transition(number[t.step], t.target) for t in state.transitions),
            tuple(number[step] for step in state.repeats),
            state.accepting,
        )
        for state in states
    )


def is_single_event(states: Sequence[State]) -> bool:
    """Whether one event completes the policy, whatever way it takes."""
    return all(states[t.target].accepting for t in states[0].transitions)


def problems(shape: Shape) -> list[tuple[str, int | None]]:
    """Returns what an automaton can't be built from: (code, number of the step concerned)."""
    found: list[tuple[str, int | None]] = []
    if nullable(shape) and not is_empty(shape):
        found.append(("ER0401", None))
    _choice_problems(shape, found)
    return found


def _choice_problems(shape: Shape, found: list[tuple[str, int | None]]) -> None:
    match shape:
        case Seq(items=items):
            for item in items:
                _choice_problems(item, found)
        case Choice(test=test, then=then, other=other):
            if test.repeat == "...":
                found.append(("ER0403", test.step))
            if nullable(other) and not is_empty(other):
                found.append(("ER0404", _leftmost(other)))
            _choice_problems(then, found)
            _choice_problems(other, found)


def _leftmost(shape: Shape) -> int | None:
    match shape:
        case One(step=step) | Choice(test=One(step=step)):
            return step
        case Seq(items=items):
            return next((step for step in map(_leftmost, items) if step is not None), None)


def to_dot(policy: CompiledPolicy) -> str:
    """Returns the automaton as a Graphviz graph."""
    lines = [f"digraph {_dot(policy.name)} {{", "  rankdir=LR;", '  node [shape=circle, fontname="sans-serif"];']
    for number, state in enumerate(policy.states):
        label = str(number) + "".join(f"\\n+ step {step}" for step in state.repeats)
        shape = ", shape=doublecircle" if state.accepting else ""
        lines.append(f'  s{number} [label="{label}"{shape}];')
        lines.extend(
            f"  s{number} -> s{t.target} [label={_dot(_edge(policy, order, t))}];"
            for order, t in enumerate(state.transitions, start=1)
        )
    return "\n".join([*lines, "}"]) + "\n"


def _edge(policy: CompiledPolicy, order: int, transition: Transition) -> str:
    state = next(s for s in policy.states if transition in s.transitions)
    rank = f"{order}. " if len(state.transitions) > 1 else ""
    return f"{rank}step {transition.step}: {policy.steps[transition.step].text}"


def _dot(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
