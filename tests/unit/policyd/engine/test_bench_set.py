"""The benchmark's set of policies and its stream are what they are said to be."""

from __future__ import annotations

import pytest

from policyd.engine import generation
from policyd.engine.machine import Machine
from policyd.engine.outputs import Output
from policyd.program import KeyKind
from tests.bench.engine.policies import BUSY, WHOLE, policies, story
from tests.bench.engine.stream import PROCESSES, Scene


def test_thousand_policies_of_ten_shapes_and_five_keys_have_three_thousand_steps() -> None:
    whole = policies()
    assert (len(whole), sum(len(policy.steps) for policy in whole)) == (WHOLE, 3 * WHOLE) == (1000, 3000)
    shapes, keys = ({part[at] for part in map(story, range(WHOLE))} for at in (0, 1))
    assert len(shapes) == 10
    assert keys == {"process", "parent", "path", "session", "tree"}
    assert {policy.key for policy in whole} == set(KeyKind)
    plain = {policy.name: policy for policy in whole}
    assert sum(policy != plain.get(policy.name) for policy in policies(busy=20)) == 20
    assert sum(policy != plain.get(policy.name) for policy in policies(busy=BUSY)) == BUSY


def test_stream_has_the_new_values_the_processes_and_the_steps_that_it_should() -> None:
    engine, scene = Machine(), Scene()
    engine.load(policies(), 1)
    for batch in scene.batches(15_000):
        engine.feed(batch)
    before = engine.stats()
    seen: set[bytes] = set()
    paths, new, kinds, actors = 0, 0, set(), set()
    for turn, batch in enumerate(scene.batches(15_000)):
        engine.feed(batch)
        for position in range(len(batch.events)):
            event = batch.event(position)
            kinds.add(event.type.name)
            actors.add(event.actor.id)
            if event.type.name in ("open", "write", "chmod"):
                path = event.get("path")
                assert isinstance(path, bytes)
                if turn > 30:
                    paths, new = paths + 1, new + (path not in seen)
                seen.add(path)
    stats = {name: value - before[name] for name, value in engine.stats().items()}
    assert kinds == {"open", "write", "connect", "chmod", "fork", "exec", "exit"}
    assert len(actors) > PROCESSES / 4
    assert 0.09 < new / paths < 0.15
    assert 0.005 < stats["advanced"] / stats["events"] < stats["fired"] / stats["events"] < 0.025
    assert (stats["malformed"], stats["evicted"]) == (0, 0)
    assert stats["completed"] > 0


def test_rows_that_are_compared_first_say_what_they_say_without(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = Machine(), Machine()
    wide.load(policies(), 1)
    monkeypatch.setattr(generation, "_WIDE", 1_000_000)
    narrow.load(policies(), 1)
    monkeypatch.undo()
    found = [_found(engine) for engine in (wide, narrow)]
    assert found[0] == found[1]
    assert len(found[0]) > 10
    assert wide.stats() == narrow.stats()


def test_rows_of_actors_that_are_forgotten_all_the_time_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, forgetful = Machine(), Machine()
    for engine in (plain, forgetful):
        engine.load(policies(), 1)
    wanted = _found(plain)
    monkeypatch.setattr(generation, "_MAX_JOINS", 3)
    monkeypatch.setattr(generation, "_PLACES", 2)
    assert _found(forgetful) == wanted
    assert plain.stats() == forgetful.stats()


def _found(engine: Machine) -> list[Output]:
    return [output for batch in Scene().batches(12_000) for output in engine.feed(batch)]


def test_busy_policies_are_begun_by_one_event_in_five() -> None:
    engine, scene = Machine(), Scene()
    engine.load(policies(busy=20), 1)
    for batch in scene.batches(8_000):
        engine.feed(batch)
    stats = engine.stats()
    assert 0.17 < stats["fired"] / stats["events"] < 0.25
    assert stats["started"] > 3 * stats["events"]
