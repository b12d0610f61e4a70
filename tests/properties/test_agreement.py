"""The engine and the reference agree on random policies and streams; batches and reloads change nothing.

`make properties` runs the first of these for as long as one likes.
"""

from __future__ import annotations

import dataclasses
from random import Random

import pytest

from execray.eventfile.reading import EventReader
from policyd.compiler import Level, compile_source
from policyd.engine.machine import Machine
from policyd.engine.outputs import Finding, Match
from policyd.engine.partials import Limits
from tests.properties import texts
from tests.properties.cases import NO_BOUNDS, Case, compare, random_case, run_engine
from tests.properties.shrink import shrink
from tests.properties.simpler_texts import simpler
from tests.properties.streams import as_json_lines

CASES = 5_000
CHUNK = 500


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_engine_equals_the_reference(first: int) -> None:
    for number in range(first, first + CHUNK):
        found = compare(random_case(f"agreement:{number}"))
        if found is not None:
            pytest.fail(f"case {number}\n\n{shrink(found, compare, tries=2_000)}", pytrace=False)


def test_random_cases_reach_every_kind_of_output() -> None:
    # What the generators never make, the comparison never compares.
    kinds: dict[str, int] = {}
    for number in range(400):
        case = random_case(f"agreement:{number}")
        engine = Machine()
        engine.load(case.programs() or (), 1)
        for batch in case.batches():
            for output in engine.feed(batch):
                kinds[type(output).__name__] = kinds.get(type(output).__name__, 0) + 1
    assert kinds.keys() == {"Match", "Excepted", "StepDone", "SensorLoss"}
    assert min(kinds.values()) > 50, kinds


def outcome(case: Case, limits: Limits) -> tuple[object, ...]:
    engine = Machine(limits)
    engine.load(case.programs() or (), 1)
    outputs = [output for batch in case.batches() for output in engine.feed(batch)]
    # Caches may be filled differently.
    stats = {name: value for name, value in engine.stats().items() if not name.startswith(("row_", "actor_"))}
    return outputs, stats


@pytest.mark.parametrize("first", range(0, 1_000, 250))
def test_any_split_into_batches_gives_the_same_outputs(first: int) -> None:
    for number in range(first, first + 250):
        rng = Random(f"split:{number}")
        case = random_case(f"split:{number}")
        # Bounds so low that evictions happen, and those must not depend on the split either.
        limits = Limits(max_partials=rng.randint(1, 4), evidence_events=3, row_entries=2)
        whole = outcome(dataclasses.replace(case, split=1000), limits)
        split = outcome(dataclasses.replace(case, split=rng.randint(1, 7)), limits)
        assert whole == split, number


def test_a_bound_on_evidence_changes_nothing_but_what_is_kept_of_it() -> None:
    left_out = 0
    for number in range(600):
        case = random_case(f"evidence:{number}")
        whole, bounded = (findings(case, limits) for limits in (NO_BOUNDS, Limits(evidence_events=3)))
        assert [finding.id for finding in bounded] == [finding.id for finding in whole], number
        for found, wanted in zip(bounded, whole, strict=True):
            assert found.bindings == wanted.bindings
            for kept, all_of_it in zip(found.trail, wanted.trail, strict=True):
                assert kept.count == all_of_it.count == len(all_of_it.events)
                assert set(kept.events) <= set(all_of_it.events)
                assert kept.events or not all_of_it.events
                left_out += len(all_of_it.events) - len(kept.events)
    assert left_out > 0


def findings(case: Case, limits: Limits) -> list[Finding]:
    engine = Machine(limits)
    engine.load(case.programs() or (), 1)
    return [output for batch in case.batches() for output in engine.feed(batch) if isinstance(output, Finding)]


@pytest.mark.parametrize("first", range(0, 1_000, 250))
def test_reload_anywhere_keeps_each_match_of_an_unchanged_policy_once(first: int) -> None:
    for number in range(first, first + 250):
        rng = Random(f"reload:{number}")
        case = random_case(f"reload:{number}")
        case = dataclasses.replace(case, split=rng.randint(1, 7))
        policies = case.programs()
        assert policies is not None
        kept, others = policies[0], policies[1:]
        alone = Machine()
        alone.load([kept], 1)
        wanted = [o.id for batch in case.batches() for o in alone.feed(batch) if isinstance(o, Match)]
        engine = Machine()
        seen = []
        for generation, batch in enumerate(case.batches()):
            # The others come and go, so that every bit of the kept one moves.
            loaded = [*others, kept] if generation % 2 else [kept]
            engine.load(loaded, generation)
            seen += [o.id for o in engine.feed(batch) if isinstance(o, Match) and o.policy is kept]
        assert seen == wanted, number


def test_an_event_file_gives_the_same_outputs_as_the_stream_that_it_holds() -> None:
    for number in range(300):
        case = random_case(f"file:{number}")
        lines = "\n".join(as_json_lines(batch) for batch in case.batches()).splitlines()
        read = list(EventReader(lines, "case.jsonl").batches(case.split))
        policies = case.programs() or ()
        assert run_engine(policies, read) == run_engine(policies, case.batches()), number


def test_a_case_is_decided_by_its_seed() -> None:
    assert random_case("x") == random_case("x")
    assert random_case("x") != random_case("y")


def test_most_random_texts_compile_and_the_others_say_nothing_wrong() -> None:
    # A step that must be met is missing, or `within` stands on the first one: what drawing at random makes.
    expected = {"ER0205", "ER0401", "ER0404", "ER0407", "ER0412"}
    refused = 0
    for number in range(400):
        rng = Random(f"texts:{number}")
        features = frozenset(feature for feature in texts.FEATURES if rng.random() < 0.6)
        compilation = compile_source(texts.render([texts.random_text(rng, features, "p")]), "random.policy")
        refused += not compilation.ok
        assert {d.code for d in compilation.diagnostics if d.level is Level.ERROR} <= expected
    assert refused < 100


def test_every_text_that_is_simpler_than_one_drawn_can_be_written_down() -> None:
    for number in range(60):
        drawn = texts.random_text(Random(f"simpler:{number}"), frozenset(texts.FEATURES), "p")
        whole = texts.render([drawn]).split()
        assert all(len(texts.render([policy]).split()) <= len(whole) for policy in simpler(drawn))
