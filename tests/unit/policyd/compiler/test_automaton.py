"""The automaton: its shape for each construct, and that it matches what the text says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.kinds import Kind
from policyd import program
from policyd.compiler import automaton, compile_source, to_dot
from policyd.compiler.automaton import Node
from policyd.compiler.source import Span
from policyd.compiler.typed import (
    Benign,
    Choice,
    Either,
    Guarded,
    One,
    Seq,
    Shape,
    ends,
    first_benign,
    is_empty,
    last_steps,
    nullable,
)
from policyd.program import CompiledPolicy, Op, Place, State, Step, Transition, Until
from policyd.program import FieldRef as Ref


def compiled(text: str) -> CompiledPolicy:
    compilation = compile_source(text, "x.policy")
    assert compilation.ok, compilation.diagnostics
    return compilation.policies[0]


def edges(policy: CompiledPolicy) -> list[list[tuple[str, int]]]:
    """Each state's transitions as (first event's source word, target)."""
    return [[(policy.steps[t.step].text.split()[0], t.target) for t in s.transitions] for s in policy.states]


def policy(body: str) -> CompiledPolicy:
    return compiled(f'path "p" within 5s {{ {body} }}')


def test_sequence_is_a_chain() -> None:
    assert edges(policy("open {} write {} exec {}")) == [[("open", 1)], [("write", 2)], [("exec", 3)], []]


def test_seed_example_has_no_way_through_its_empty_branch() -> None:
    text = """
    path "credential_theft" {
        openat { pathname =~ "/etc/(passwd|shadow)" flags == O_RDWR }
        write  { content =~ ".*root.*" } ?
        block "shell"  { execve { filename = "/bin/sh" argv[0] =~ "sh" } } :
        block "normal" { ... }
    }"""
    seed = compiled(text)
    assert edges(seed) == [[("openat", 1)], [("write", 2)], [("execve", 3)], []]
    assert seed.steps[2].labels == ("shell",)
    assert seed.within_ns == 300_000_000_000


def test_both_first_steps_of_a_choice_are_awaited_and_what_follows_is_one_place() -> None:
    assert edges(policy("exit {} open {} ? write {} : exec {} connect {}")) == [
        [("exit", 1)],
        [("open", 2), ("exec", 3)],
        [("write", 3)],
        [("connect", 4)],
        [],
    ]


def test_all_alternatives_of_a_nested_choice_are_awaited_in_text_order() -> None:
    found = edges(policy("open {} ? write {} : exec {} ? exit {} : fork {} ? ptrace {} : chmod {}"))
    assert [event for event, _ in found[0]] == ["open", "exec", "fork", "chmod"]


def test_empty_branches_need_no_event() -> None:
    assert edges(policy("open {} ? ... : exec {} write {}")) == [[("open", 1), ("exec", 1)], [("write", 2)], []]
    for other in ("..", "...", "{}", 'block "b" {}', 'block "b" { ... }'):
        assert edges(policy(f"open {{}} ? write {{}} : {other}")) == [[("open", 1)], [("write", 2)], []]


def test_one_or_more_repeats_behind_the_step_and_zero_or_more_before_the_next() -> None:
    repeated = policy("open {} .. write {} ... exec {}")
    assert edges(repeated) == [[("open", 1)], [("exec", 2)], []]
    assert repeated.states[1].repeats == (0, 1)


def test_dots_on_a_line_of_their_own_mean_nothing() -> None:
    assert policy("open {}\n..\nwrite {}\n...").states[1].repeats == ()


def test_accepting_states_have_no_transitions_and_no_repeats() -> None:
    for state in policy("open {} write {} ..").states:
        assert not (state.accepting and (state.transitions or state.repeats))


def test_unreached_alternative_is_dropped_with_its_step() -> None:
    hidden = policy("open {} ? write {} : open { uid = 0 } exec {}")
    assert [step.text.split()[0] for step in hidden.steps] == ["open", "write", "exec"]
    assert edges(hidden) == [[("open", 1)], [("write", 2)], [("exec", 3)], []]


def test_handlers_run_in_text_order_and_an_alert_is_implied() -> None:
    explicit = policy('open {} as o block "b" { write {} on match { log } } on step o { log } on match { alert }')
    assert [(h.step, h.labels) for h in explicit.handlers] == [(None, ("b",)), ("o", ()), (None, ())]
    implied = policy("open {} as o write {} on step o { log }")
    assert [h.step for h in implied.handlers] == ["o", None]


def test_window_is_given_only_where_one_event_does_not_complete_the_policy() -> None:
    assert compiled('path "p" within 5s { open {} }').within_ns is None
    assert compiled('path "p" { open {} ? ... : exec {} }').within_ns is None
    assert compiled('path "p" { open {} ? write {} : exec {} }').within_ns == 300_000_000_000


def test_policy_without_steps_never_matches() -> None:
    empty = compiled('path "p" { ... }')
    assert empty.states == (State(),)
    assert empty.codes == frozenset()


def test_dot_shows_every_state_and_transition() -> None:
    drawn = to_dot(policy('open { path = "/x\\"" } ? write {} .. : exec {} exit {}'))
    assert drawn.startswith('digraph "p" {\n')
    assert drawn.count(" -> ") == 5
    assert drawn.count("doublecircle") == 1
    assert '1. step 0: open { path = \\"/x\\\\\\"\\" }' in drawn


# ---- against a matcher that reads the typed tree

SYMBOLS = 4


def steps_for(shape: Shape, symbols: Sequence[int]) -> list[Step]:
    """One step for each number in the shape, met by one symbol each."""
    place = Place("x", 1, 1)
    field = Ref("uid", Kind.INT)
    return [Step((1,), program.Test(field, Op.EQ, symbol), "", place) for symbol in symbols]


class Ended(Exception):
    """The partial is gone: `benign`, or cancelled."""


def firsts(shape: Shape) -> list[int]:
    """The steps that can come first, in text order; a `...` comes behind what may follow it."""
    match shape:
        case One(step=step):
            return [step]
        case Choice(test=test, other=other):
            return [*firsts(test), *firsts(other)]
        case Either(branches=branches):
            return [step for branch in branches for step in firsts(branch)]
        case Guarded(body=body):
            return firsts(body)
        case Seq(items=items):
            found: list[int] = []
            optional: list[int] = []
            for item in items:
                if nullable(item):
                    optional = [*firsts(item), *optional] if not is_empty(item) else optional
                    continue
                found = firsts(item)
                break
            return [*found, *optional]
    return []


def entries(shape: Shape) -> list[int]:
    """The steps that can be the first required one."""
    match shape:
        case One(step=step, repeat=repeat):
            return [] if repeat == "..." else [step]
        case Choice(test=test, other=other):
            return [*entries(test), *entries(other)]
        case Either(branches=branches):
            return [step for branch in branches for step in entries(branch)]
        case Guarded(body=body):
            return entries(body)
        case Seq(items=items):
            return next((entries(item) for item in items if not nullable(item)), [])
    return []


def naive(shape: Shape, stream: Sequence[int], at: int, symbol: Sequence[int]) -> int | None:
    """Where in the stream the shape is complete, the first event of each step deciding; None if it never is."""
    position: int | None = at
    match shape:
        case One(step=step, repeat=repeat):
            if repeat != "...":
                position = next((i + 1 for i in range(at, len(stream)) if stream[i] == symbol[step]), None)
        case Seq(items=items):
            for item in items:
                position = None if position is None else naive(item, stream, position, symbol)
        case Choice(test=test, then=then, other=other):
            ways = [({symbol[test.step]}, Seq((One(test.step), then)))]
            position = first_way([*ways, *([] if is_empty(other) else [heads(other, symbol)])], stream, at, symbol)
        case Either(branches=branches):
            position = first_way([heads(branch, symbol) for branch in branches], stream, at, symbol)
        case Benign():
            raise Ended
        case Guarded(body=body, untils=untils):
            position = guarded(body, {symbol[step] for step in untils}, stream, at, symbol)
    return position


def heads(shape: Shape, symbol: Sequence[int]) -> tuple[set[int], Shape]:
    return {symbol[step] for step in firsts(shape)}, shape


def first_way(
    ways: Sequence[tuple[set[int], Shape]], stream: Sequence[int], at: int, symbol: Sequence[int]
) -> int | None:
    """The first event that begins one of the ways decides; of two, the first in the text."""
    for i in range(at, len(stream)):
        for begun_by, shape in ways:
            if stream[i] in begun_by:
                return naive(shape, stream, i, symbol)
    return None


def guarded(body: Shape, untils: set[int], stream: Sequence[int], at: int, symbol: Sequence[int]) -> int | None:
    """A block with `until`: cancelled by such an event behind its first step, up to its last one."""
    starts = {symbol[step] for step in entries(body)}
    entered = next((i for i in range(at, len(stream)) if stream[i] in starts), len(stream))
    cut = next((i for i in range(entered + 1, len(stream)) if stream[i] in untils), None)
    done = naive(body, stream if cut is None else stream[:cut], at, symbol)
    if done is None and cut is not None:
        raise Ended
    return done


def run(states: Sequence[Node], stream: Sequence[int], symbol: Sequence[int]) -> tuple[int, list[int]] | None:
    """Follows one partial: where it is accepted, and the steps of its transitions and repeats."""
    state, taken = 0, []
    for i, event in enumerate(stream):
        if any(symbol[step] == event for step in states[state].untils):
            return None
        repeated = [step for step in states[state].repeats if symbol[step] == event]
        move = next((t for t in states[state].transitions if symbol[t.step] == event), None)
        taken.extend(repeated)
        if move is not None:
            taken.append(move.step)
            state = move.target
            if states[state].accepting:
                return i + 1, taken
    return None


class _Numbers:
    def __init__(self) -> None:
        self.next = 0

    def take(self) -> int:
        self.next += 1
        return self.next - 1


def _one(numbers: _Numbers, repeat: str) -> One:
    return One(numbers.take(), repeat)


@st.composite
def shapes(draw: st.DrawFn, depth: int = 3, numbers: _Numbers | None = None) -> Shape:
    """Trees that the parser can make: numbered in text order, a choice's test required."""
    numbers = numbers or _Numbers()
    kinds = ["one", "one", "one", "seq", "choice", "either", "guarded", "benign"]
    kind = draw(st.sampled_from(kinds if depth else ["one"]))
    if kind == "one":
        return _one(numbers, draw(st.sampled_from(["", "", "..", "..."])))
    if kind == "seq":
        count = draw(st.integers(0, 3))
        return Seq(tuple(draw(shapes(depth - 1, numbers)) for _ in range(count)))
    if kind == "either":
        count = draw(st.integers(1, 3))
        return Either(tuple(draw(shapes(depth - 1, numbers)) for _ in range(count)))
    if kind == "guarded":
        body = Seq(tuple(draw(shapes(depth - 1, numbers)) for _ in range(draw(st.integers(1, 3)))))
        return Guarded(body, tuple(numbers.take() for _ in range(draw(st.integers(1, 2)))))
    if kind == "benign":
        return Seq((_one(numbers, ""), Benign(Span(0, 0))))
    test = _one(numbers, draw(st.sampled_from(["", ".."])))
    then = draw(shapes(depth - 1, numbers))
    other = draw(shapes(depth - 1, numbers)) if draw(st.booleans()) else Seq()
    return Choice(test, then, other)


def count_steps(shape: Shape) -> int:
    match shape:
        case One():
            return 1
        case Seq(items=items) | Either(branches=items):
            return sum(count_steps(item) for item in items)
        case Guarded(body=body, untils=untils):
            return count_steps(body) + len(untils)
        case Choice(then=then, other=other):
            return 1 + count_steps(then) + count_steps(other)
    return 0


def is_sound(shape: Shape) -> bool:
    """Whether the semantic phase lets it pass: every branch decides by a step."""
    match shape:
        case Seq(items=items):
            return all(map(is_sound, items))
        case Either(branches=branches):
            return all(is_sound(branch) and not nullable(branch) and not first_benign(branch) for branch in branches)
        case Guarded(body=body):
            return is_sound(body)
        case Choice(then=then, other=other):
            return is_sound(then) and is_sound(other) and not first_benign(other)
    return True


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_minimised_and_plain_automaton_and_the_text_agree_on_random_streams(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    if automaton.problems(shape) or is_empty(shape) or not is_sound(shape) or first_benign(shape):
        return
    size = count_steps(shape)
    symbol = data.draw(st.lists(st.integers(0, SYMBOLS - 1), min_size=size, max_size=size))
    steps = steps_for(shape, symbol)
    plain = automaton.build(shape)
    pruned = automaton.without_hidden(plain, steps)
    small = automaton.minimise(pruned)
    assert len(small) <= len(pruned) <= len(plain) <= 2 * size + 2
    stream = data.draw(st.lists(st.integers(0, SYMBOLS), max_size=24))
    expected = run(plain, stream, symbol)
    assert run(small, stream, symbol) == expected
    try:
        by_the_text = naive(shape, stream, 0, symbol)
    except Ended:
        by_the_text = None
    assert (expected[0] if expected else None) == by_the_text
    assert not (ends(shape) and expected)
    if expected:
        assert expected[1][-1] in last_steps(shape)


def test_minimise_merges_states_that_cannot_be_told_apart() -> None:
    end = Node(accepting=True)
    states = (
        Node((Transition(0, 1), Transition(1, 2))),
        Node((Transition(2, 3),)),
        Node((Transition(2, 4),)),
        end,
        end,
    )
    assert automaton.minimise(states) == (Node((Transition(0, 1), Transition(1, 1))), Node((Transition(2, 2),)), end)


@pytest.mark.parametrize(
    "changed",
    [
        Node((Transition(2, 3),), repeats=(0,)),
        Node((Transition(3, 3),)),
        Node((Transition(2, 3), Transition(3, 3))),
        Node((Transition(2, 3),), untils=(9,)),
    ],
)
def test_minimise_keeps_states_that_differ(changed: Node) -> None:
    states = (Node((Transition(0, 1), Transition(1, 2))), Node((Transition(2, 3),)), changed, Node(accepting=True))
    assert automaton.minimise(states) == states


def test_unreachable_states_are_dropped() -> None:
    states = (Node((Transition(0, 2),)), Node((Transition(1, 2),)), Node(accepting=True))
    assert automaton.reachable(states) == (Node((Transition(0, 1),)), Node(accepting=True))


# ---- what each construct becomes


def test_either_awaits_the_first_steps_of_all_its_branches() -> None:
    assert edges(policy("exit {} either { open {} write {} } or { exec {} } or { connect {} } fork {}")) == [
        [("exit", 1)],
        [("open", 2), ("exec", 3), ("connect", 3)],
        [("write", 3)],
        [("fork", 4)],
        [],
    ]


def test_benign_is_a_place_that_nothing_leaves_and_that_does_not_accept() -> None:
    ended = policy("open {} ? { exit {} benign } : write {} connect {}")
    assert edges(ended) == [[("open", 1), ("write", 2)], [("exit", 3)], [("connect", 4)], [], []]
    assert [state.accepting for state in ended.states] == [False, False, False, False, True]


def test_until_of_a_policy_holds_wherever_a_partial_waits() -> None:
    assert policy("open {} write {} exec {} until exit { uid = 0 }").untils == (Until(3, (1, 2)),)
    assert policy("open {} times 3 write {} until exit {}").untils == (Until(2, (0, 1)),)


def test_until_of_a_block_holds_between_its_first_step_and_its_last() -> None:
    inside = policy('exec {} block "b" { open {} write {} connect {} until exit {} } fork {}')
    assert edges(inside)[2:4] == [[("write", 3)], [("connect", 4)]]
    assert [(inside.steps[u.step].text, u.states) for u in inside.untils] == [("exit {}", (2, 3))]


def test_steps_of_an_until_are_reached_by_no_transition() -> None:
    found = policy("open {} write {} until chmod {}")
    taken = {t.step for state in found.states for t in state.transitions}
    assert taken.isdisjoint(until.step for until in found.untils)


def test_alternative_with_another_key_is_not_hidden() -> None:
    both = compiled(
        'path "p" within 5s { exec {} by path_ either { exec {} } or { exec {} by parent.id } }'.replace("by path_", "")
    )
    assert [event for event, _ in edges(both)[1]] == ["exec", "exec"]
