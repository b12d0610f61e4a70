"""The compiler's automaton, before it is made smaller, is the one that another way of reading the text finds."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from policyd.compiler import compile_source
from policyd.program import CompiledPolicy
from tests.properties import texts
from tests.properties.cases import plain_automata
from tests.properties.places import Expected, expected, guards


def compiled(first: int, count: int) -> Iterator[tuple[str, texts.Policy, CompiledPolicy]]:
    """Random texts that compile, as trees and as programs whose automata are plain."""
    found = 0
    for number in range(first, first + count):
        rng = Random(f"places:{number}")
        features = frozenset(feature for feature in texts.FEATURES if rng.random() < 0.7)
        tree = texts.random_text(rng, features, "p")
        text = texts.render([tree])
        with plain_automata():
            compilation = compile_source(text, "random.policy")
        if compilation.ok:
            found += 1
            yield text, tree, compilation.policies[0]
    assert found > count * 0.7


@pytest.mark.parametrize("first", (0, 500))
def test_places_and_ways_are_those_of_the_text(first: int) -> None:
    for text, tree, policy in compiled(first, 500):
        wanted = [(state.ways, state.repeats, state.ends) for state in expected(tree)]
        names = [step.alias or "" for step in policy.steps]
        found = [
            (
                tuple((names[way.step], way.target) for way in state.transitions),
                tuple(names[step] for step in state.repeats),
                "accept" if state.accepting else "" if state.transitions else "benign",
            )
            for state in policy.states
        ]
        assert found == wanted, text


@pytest.mark.parametrize("first", (0, 500))
def test_until_holds_everywhere_and_in_a_block_from_its_first_step_to_its_last(first: int) -> None:
    for text, tree, policy in compiled(first, 500):
        places = expected(tree)
        if any(place.perhaps for place in places):
            continue  # what follows the last step that a block requires is not said to be in it, nor not to be
        live = {number for number, place in enumerate(places) if not place.ends and waits_in(policy, number)}
        wanted = [live] * len(tree.untils)
        for block, count in guards(tree).items():
            wanted += [{number for number in live if block in places[number].inside}] * count
        found = [{number for number in until.states if number in live} for until in policy.untils]
        assert sorted(map(sorted, filter(None, found))) == sorted(map(sorted, filter(None, wanted))), text


def waits_in(policy: CompiledPolicy, state: int) -> bool:
    """Whether a partial can wait in a state: in the start only while it counts."""
    return state != 0 or any(policy.steps[way.step].times for way in policy.states[0].transitions)


def test_places_of_a_text_worked_out_by_hand() -> None:
    a, b, c, d = (texts.Step("open", alias=alias) for alias in "abcd")
    repeated = texts.Step("open", alias="r", modifiers=("...",))
    tree = texts.Policy("p", (), (texts.Choice(a, texts.Benign(), texts.Block("x", (b, repeated))), c, d))
    nothing = frozenset[tuple[int, ...]]()
    assert expected(tree) == [
        Expected((("a", 1), ("b", 2)), (), "", nothing, nothing),
        Expected((), (), "benign", nothing, nothing),
        Expected((("c", 3),), ("r",), "", nothing, nothing),
        Expected((("d", 4),), (), "", nothing, nothing),
        Expected((), (), "accept", nothing, nothing),
    ]
