"""Replacing the loaded policies between two batches."""

from __future__ import annotations

import dataclasses

import pytest

from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.patterns import PatternError
from policyd.program import KeyKind, Op
from tests.support.playbook import Play
from tests.support.programs import eq, policy, step, test

A = step("open", eq("path", "/a"), alias="a")
B = step("open", eq("path", "/b"), alias="b")
KEPT = policy("kept", A, B)
TREE = policy("tree", A, B, key=KeyKind.TREE)
CHANGED = policy("changed", A, B)
REMOVED = policy("removed", A, B)


def started() -> tuple[Machine, Play]:
    """A machine in which every policy has begun, and the play that goes on."""
    engine = Machine()
    engine.load([REMOVED, CHANGED, KEPT, TREE], 1)
    play = Play()
    proc = play.process()
    play.event("open", proc, path="/a")
    engine.feed(play.batch())
    play.event("open", proc, path="/b")
    return engine, play


def names(engine: Machine, play: Play) -> list[str]:
    return [o.policy.name for o in engine.feed(play.batch()) if isinstance(o, Match)]


def test_unchanged_policies_keep_their_partials_and_others_lose_them() -> None:
    engine, play = started()
    changed = policy("changed", A, B, version=2)
    report = engine.load([policy("new", A), TREE, KEPT, changed], 2)
    assert report.generation == 2
    assert (report.added, report.removed, report.unchanged) == (
        ("new", "changed"),
        ("removed", "changed"),
        ("tree", "kept"),
    )
    assert (report.partials_kept, report.partials_retired) == (2, 2)
    assert engine.stats()["retired"] == 2
    (first, second) = [o for o in engine.feed(play.batch()) if isinstance(o, Match)]
    assert [first.policy.name, second.policy.name] == ["tree", "kept"]
    assert first.generation == 2


def test_unchanged_policy_at_another_place_in_the_file_is_the_new_one() -> None:
    engine, play = started()
    moved = dataclasses.replace(KEPT, place=dataclasses.replace(KEPT.place, line=99))
    engine.load([moved], 2)
    (match,) = engine.feed(play.batch())
    assert isinstance(match, Match)
    assert match.policy.place.line == 99


def test_match_has_the_same_id_with_and_without_a_reload_before_it() -> None:
    engine, play = started()
    other, twin = started()
    other.load([KEPT], 2)
    (after,) = [o for o in other.feed(twin.batch()) if isinstance(o, Match)]
    assert after.id in {o.id for o in engine.feed(play.batch()) if isinstance(o, Match)}


def test_refused_pattern_leaves_everything_as_it_was() -> None:
    engine, play = started()
    for broken in (test("path", Op.MATCH, ("(",)), test("content", Op.MATCH, ("a{99999}",))):
        with pytest.raises(PatternError):
            engine.load([KEPT, policy("broken", step("write", broken))], 2)
    assert names(engine, play) == ["removed", "changed", "kept", "tree"]


def test_policies_of_one_name_and_hash_run_side_by_side() -> None:
    engine = Machine()
    engine.load([KEPT, KEPT], 1)
    play = Play()
    proc = play.process()
    play.event("open", proc, path="/a")
    engine.feed(play.batch())
    assert engine.load([KEPT, KEPT], 2).partials_kept == 2
    play.event("open", proc, path="/b")
    assert names(engine, play) == ["kept", "kept"]


def test_empty_set_needs_nothing_and_takes_everything() -> None:
    engine, play = started()
    report = engine.load([], 2)
    assert report.partials_retired == 4
    assert engine.needs().codes == frozenset()
    assert names(engine, play) == []
    assert engine.stats()["partials"] == 0
