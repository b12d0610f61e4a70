"""Typed tree to automaton: places of the text become states; what can't be reached or told apart goes.

A policy is read backwards: each statement is built onto the place that follows it, so that what follows a choice is one
place however it is reached. Construction is linear in the text, and the result is deterministic: transitions are in
text order and the first that an event meets is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from execray.schema.records import compared
from policyd.compiler.typed import Benign, Choice, Either, Guarded, One, Seq, Shape, is_empty, nullable
from policyd.program import And, CompiledPolicy, State, Step, Transition, Until


@compared(frozen=True, slots=True)
class Node:
    """A state, with the steps that cancel a partial waiting in it."""

    transitions: tuple[Transition, ...] = ()
    repeats: tuple[int, ...] = ()
    accepting: bool = False
    untils: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class _Place:
    """A state under construction. Identity is what counts: two places are two states until minimised."""

    transitions: list[tuple[int, _Place]] = field(default_factory=list)
    repeats: tuple[int, ...] = ()
    accepting: bool = False
    untils: tuple[int, ...] = ()


def build(shape: Shape, untils: tuple[int, ...] = (), counted: frozenset[int] = frozenset()) -> tuple[Node, ...]:
    """Returns the states as the text has them, states[0] the start. Every one of them can be reached.

    untils: the steps that cancel wherever a partial waits. counted: the steps with `times`; where one of them comes first,
    what has been counted waits in the start. shape must not be nullable, unless it is empty; nor may a branch be.
    """
    if is_empty(shape):
        return (Node(),)
    start = _Builder(untils).build(shape, _Place(accepting=True))
    counts = any(step in counted for step, _ in start.transitions)
    # Before the first step there is no partial to keep evidence in.
    return _numbered(_Place(start.transitions, untils=untils if counts else ()))


class _Builder:
    """Builds a shape onto the place that follows it. untils: those that hold inside of the blocks around."""

    def __init__(self, untils: tuple[int, ...]) -> None:
        self._untils = untils

    def build(self, shape: Shape, after: _Place) -> _Place:
        match shape:
            case One():
                return self._one(shape, after)
            case Seq(items=items):
                for item in reversed(items):
                    after = self.build(item, after)
                return after
            case Choice(test=test, then=then, other=other):
                place = self.build(test, self.build(then, after))
                return place if is_empty(other) else self._first_of([place, self.build(other, after)])
            case Either(branches=branches):
                return self._first_of([self.build(branch, after) for branch in branches])
            case Benign():
                return _Place()
            case Guarded(body=body, untils=untils):
                return self._guarded(body, untils, after)

    def _one(self, one: One, after: _Place) -> _Place:
        if one.repeat == "...":
            return _repeating(one.step, after)
        return self._place([(one.step, _repeating(one.step, after) if one.repeat else after)])

    def _place(self, transitions: list[tuple[int, _Place]]) -> _Place:
        return _Place(transitions, untils=self._untils)

    def _first_of(self, heads: Sequence[_Place]) -> _Place:
        # A `...` at the head of a branch is an event of that branch too: meeting it decides, and goes on behind it.
        moves: list[tuple[int, _Place]] = []
        for head in heads:
            moves += head.transitions
            moves += [(step, head) for step in head.repeats]
        return self._place(moves)

    def _guarded(self, body: Shape, untils: tuple[int, ...], after: _Place) -> _Place:
        # The place before the block's first step is not inside of it, nor is the one behind its last.
        outer = self._untils
        self._untils = (*outer, *untils)
        head = self.build(body, after)
        self._untils = outer
        return head if head is after else _Place(head.transitions, head.repeats, untils=outer)


def _repeating(step: int, after: _Place) -> _Place:
    # A partial ends on entering a place without transitions, so nothing repeats there.
    return _Place(after.transitions, (step, *after.repeats), untils=after.untils) if after.transitions else after


def _numbered(start: _Place) -> tuple[Node, ...]:
    """Numbers the places breadth first from the start, so text order shows in the numbers."""
    order = [start]
    number = {id(start): 0}
    for place in order:  # grows while it is read
        for _, target in place.transitions:
            if id(target) not in number:
                number[id(target)] = len(order)
                order.append(target)
    return tuple(
        Node(
            tuple(Transition(step, number[id(target)]) for step, target in place.transitions),
            place.repeats,
            place.accepting,
            place.untils if place.transitions else (),
        )
        for place in order
    )


def _covers(first: Step, second: Step) -> bool:
    """Whether every event that meets `second` meets `first`, as far as that is plain to see."""
    if first.within_ns is not None or first.times is not None or first.key != second.key:
        return False
    if not set(second.codes) <= set(first.codes):
        return False
    return first.condition == And(()) or first.condition == second.condition


def without_hidden(states: Sequence[Node], steps: Sequence[Step]) -> tuple[Node, ...]:
    """Drops transitions that an earlier one of the same state always forestalls, and what only they reached."""
    kept = []
    for state in states:
        transitions: list[Transition] = []
        for transition in state.transitions:
            if not any(_covers(steps[earlier.step], steps[transition.step]) for earlier in transitions):
                transitions.append(transition)
        kept.append(replace(state, transitions=tuple(transitions)))
    return reachable(kept)


def reachable(states: Sequence[Node]) -> tuple[Node, ...]:
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


def minimise(states: Sequence[Node]) -> tuple[Node, ...]:
    """Merges states that no sequence of events tells apart, by partition refinement (Moore).

    Two states are the same when they accept alike, repeat the same steps, are cancelled by the same, and their transitions
    take the same steps in the same order to states that are the same. Steps are places in the text, so evidence and aliases
    stay the same too.
    """
    block = [0] * len(states)
    count = 0
    while True:
        signatures: dict[object, int] = {}
        refined = []
        for index, state in enumerate(states):
            moves = tuple((t.step, block[t.target]) for t in state.transitions)
            signature = (block[index], state.accepting, state.repeats, state.untils, moves)
            refined.append(signatures.setdefault(signature, len(signatures)))
        block = refined
        if len(signatures) == count:
            break
        count = len(signatures)
    if count == len(states):
        return tuple(states)
    first: dict[int, Node] = {}
    for index, state in enumerate(states):
        first.setdefault(block[index], state)
    # Blocks are numbered by their first state, so the start's is 0.
    merged = [
        replace(state, transitions=tuple(Transition(t.step, block[t.target]) for t in state.transitions))
        for _, state in sorted(first.items())
    ]
    return reachable(merged)


def used_steps(states: Sequence[Node]) -> list[int]:
    """Returns the numbers of the steps that some state awaits, repeats or is cancelled by, ascending."""
    used = {t.step for state in states for t in state.transitions}
    return sorted(used.union(*(state.repeats for state in states), *(state.untils for state in states)))


def finished(states: Sequence[Node], used: Sequence[int]) -> tuple[tuple[State, ...], tuple[Until, ...]]:
    """Returns what the engine runs, with step numbers replaced by their places in `used`."""
    number = {step: index for index, step in enumerate(used)}
    cancelled: dict[int, list[int]] = {}
    for index, state in enumerate(states):
        for step in state.untils:
            cancelled.setdefault(number[step], []).append(index)
    program_states = tuple(
        State(
            tuple(Transition(number[t.step], t.target) for t in state.transitions),
            tuple(number[step] for step in state.repeats),
            state.accepting,
        )
        for state in states
    )
    return program_states, tuple(Until(step, tuple(places)) for step, places in sorted(cancelled.items()))


def is_single_event(states: Sequence[Node], steps: Sequence[Step]) -> bool:
    """Whether one event completes or ends the policy, whatever way it takes."""
    first = states[0].transitions
    return all(not states[t.target].transitions and steps[t.step].times is None for t in first)


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
        case Either(branches=branches):
            for branch in branches:
                _choice_problems(branch, found)
        case Guarded(body=body):
            _choice_problems(body, found)
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
        case Seq(items=items) | Either(branches=items):
            return next((step for step in map(_leftmost, items) if step is not None), None)
        case Guarded(body=body):
            return _leftmost(body)
    return None


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
