"""What the events of a sequence share: fields of each step, the same or others."""

from __future__ import annotations

import pytest

from execray.schema.catalog import Flag
from policyd.engine.outputs import Match
from policyd.program import KeyKind, Op
from tests.support.playbook import Play
from tests.support.programs import eq, keyed, policy, step, test
from tests.support.stories import A, B, C, Story, machine, matches, trails

FIELDS = KeyKind.FIELDS
WRITE = step("write", alias="w")
OPEN = step("open", alias="o")
CHMOD = step("chmod", alias="c")


def test_two_processes_share_a_file_and_a_third_file_is_another_sequence() -> None:
    engine = machine(policy("p", *keyed("path", OPEN, WRITE), key=FIELDS))
    play = Play()
    one, other = play.process(), play.process()
    play.event("open", one, path="/x")
    play.event("write", other, path="/y")
    play.event("write", other, path="/x")
    (match,) = matches(engine.feed(play.batch()))
    assert (match.key, match.event.id, match.actor.id) == ((b"/x",), 3, other.id)


def test_each_step_may_have_its_own_key() -> None:
    engine = machine(policy("p", *keyed("path > exe", OPEN, step("exec", alias="run")), key=FIELDS))
    play = Play()
    play.event("open", play.process(), path="/tmp/x")
    play.event("exec", play.process(exe="/tmp/y"))
    play.event("exec", play.process(exe="/tmp/x"))
    assert trails(engine.feed(play.batch())) == [[("o", 1), ("run", 3)]]


def test_parent_continues_as_its_child() -> None:
    engine = machine(policy("p", *keyed("proc.id > parent.proc.id", A, B), key=FIELDS))
    play = Play()
    parent = play.process()
    child, stranger = play.process(parent), play.process(play.process())
    play.event("open", parent, path="/a")
    for proc in (parent, stranger, child):
        play.event("open", proc, path="/b")
    (match,) = matches(engine.feed(play.batch()))
    assert (match.actor.id, match.key) == (child.id, (parent.id,))


def test_a_key_may_be_a_number_that_is_made_of_an_identity() -> None:
    engine = machine(policy("p", *keyed("child.pid > pid", step("fork", alias="f"), B), key=FIELDS))
    play = Play()
    parent = play.process()
    child, stranger = play.process(parent), play.process(parent)
    play.event("fork", parent, child_id=child.id)
    play.event("open", stranger, path="/b")
    play.event("open", child, path="/b")
    assert [(m.actor.id, m.key) for m in matches(engine.feed(play.batch()))] == [(child.id, (child.id[0],))]


def test_a_number_of_the_parents_identity_is_a_key_too() -> None:
    engine = machine(policy("p", *keyed("pid > parent.pid", A, B), key=FIELDS))
    play = Play()
    parent = play.process()
    child = play.process(parent)
    play.event("open", parent, path="/a")
    play.event("open", child, path="/b")
    assert [(m.actor.id, m.key) for m in matches(engine.feed(play.batch()))] == [(child.id, (parent.id[0],))]


def test_siblings_share_their_parent() -> None:
    engine = machine(policy("p", *keyed("parent.proc.id", A, B), key=FIELDS))
    play = Play()
    parent = play.process()
    one, other = play.process(parent), play.process(parent)
    play.event("open", one, path="/a")
    play.event("open", parent, path="/b")
    play.event("open", other, path="/b")
    assert [m.actor.id for m in matches(engine.feed(play.batch()))] == [other.id]


def test_ancestor_as_key() -> None:
    engine = machine(policy("p", *keyed("ancestor[1].proc.id > proc.id", A, B), key=FIELDS))
    play = Play()
    top = play.process()
    grandchild = play.process(play.process(top))
    play.event("open", play.process(top), path="/a")
    play.event("open", top, path="/b")
    play.event("open", grandchild, path="/a")
    play.event("open", top, path="/b")
    assert trails(engine.feed(play.batch())) == [[("a", 3), ("b", 4)]]


def test_key_of_several_parts() -> None:
    engine = machine(policy("p", *keyed("uid, path", OPEN, WRITE), key=FIELDS))
    play = Play()
    one, other = play.process(uid=1), play.process(uid=2)
    play.event("open", one, path="/x")
    play.event("write", other, path="/x")
    play.event("write", one, path="/y")
    play.event("write", one, path="/x")
    assert [m.key for m in matches(engine.feed(play.batch()))] == [(1, b"/x")]


def test_empty_key_is_the_host() -> None:
    engine = machine(policy("p", *keyed("", A, B), key=FIELDS))
    play = Play()
    play.event("open", play.process(), path="/a")
    play.event("open", play.process(), path="/b")
    (match,) = matches(engine.feed(play.batch()))
    assert match.key == ()


def test_event_without_a_part_of_the_key_meets_no_step() -> None:
    engine = machine(policy("p", *keyed("uid, path", OPEN, WRITE), key=FIELDS), policy("q", OPEN, WRITE))
    play = Play()
    proc = play.process()
    play.event("open", proc)
    play.event("write", proc, path="/x")
    assert [m.policy.name for m in matches(engine.feed(play.batch()))] == ["q"]
    # Of `write|chmod`, only write has an `fd`.
    either = policy("p", *keyed("fd", step("write|chmod", alias="s")), key=FIELDS, within_s=None)
    engine = machine(either)
    play.event("chmod", proc, path="/x")
    play.event("write", proc, fd=3)
    assert [m.key for m in matches(engine.feed(play.batch()))] == [(3,)]


def test_derived_fields_and_elements_are_keys_too() -> None:
    engine = machine(policy("p", *keyed("name, argv[1]", A, B), key=FIELDS))
    play = Play()
    play.event("open", play.process(exe="/bin/x", argv=["x"]), path="/a")
    play.event("open", play.process(exe="/bin/x", argv=["x", "one"]), path="/a")
    for arguments in (["x"], ["x", "two"], ["x", "one"]):
        play.event("open", play.process(exe="/usr/bin/x", argv=arguments), path="/b")
    assert [(m.key, m.event.id) for m in matches(engine.feed(play.batch()))] == [((b"x", b"one"), 5)]


def test_thread_is_a_key() -> None:
    engine = machine(policy("p", *keyed("tid", A, B), key=FIELDS))
    play = Play()
    proc = play.process()
    play.event("open", proc, path="/a", tid=7)
    play.event("open", proc, path="/b", tid=8)
    play.event("open", proc, path="/b", tid=7)
    assert trails(engine.feed(play.batch())) == [[("a", 1), ("b", 3)]]


def test_event_moves_partials_of_two_keys_when_its_steps_have_different_ones() -> None:
    # either B by proc.id or C by parent.proc.id: one event may be both, under another key each.
    both = step("open", test("path", Op.IN, ("/b", "/bc")), alias="b")
    child = step("open", test("path", Op.IN, ("/c", "/bc")), alias="c")
    steps = keyed("proc.id > proc.id > parent.proc.id", A, both, child)
    from policyd.program import State, Transition

    states = (State((Transition(0, 1),)), State((Transition(1, 2), Transition(2, 2))), State(accepting=True))
    engine = machine(policy("p", *steps, key=FIELDS, states=states))
    play = Play()
    parent = play.process()
    proc = play.process(parent)
    play.event("open", parent, path="/a")
    play.event("open", proc, path="/a")
    play.event("open", proc, path="/bc")
    found = matches(engine.feed(play.batch()))
    assert sorted((m.key, m.trail[1].step.alias) for m in found) == [((parent.id,), "c"), ((proc.id,), "b")]


def test_one_event_moves_a_partial_once_also_when_two_of_its_keys_are_equal() -> None:
    engine = machine(
        policy("p", *keyed("uid > uid > euid", A, B, step("open", eq("path", "/b"), alias="again")), key=FIELDS)
    )
    assert trails(Story().opens("a", "b", "b").told_to(engine)) == [[("a", 1), ("b", 2), ("again", 3)]]


def test_end_of_the_process_ends_nothing_under_a_key_of_fields() -> None:
    engine = machine(policy("p", *keyed("proc.id > parent.proc.id", A, B), key=FIELDS, within_s=100))
    play = Play()
    parent = play.process()
    child = play.fork(parent)
    play.event("open", parent, path="/a", at=1)
    play.exit(parent, at=2)
    play.event("open", child, path="/b", at=100)
    assert len(matches(engine.feed(play.batch()))) == 1


def test_windows_and_bounds_hold_under_keys_of_fields() -> None:
    engine = machine(policy("p", *keyed("path", OPEN, CHMOD), key=FIELDS, within_s=10, max_partials=3))
    play = Play()
    proc = play.process()
    for name in "abcde":
        play.event("open", proc, path=f"/{name}")
    engine.feed(play.batch())
    assert (engine.stats()["partials"], engine.stats()["evicted"]) == (3, 2)
    engine.advance_clock(play.now_ns + 11_000_000_000)
    assert (engine.stats()["partials"], engine.stats()["expired"], engine.stats()["evidence_bytes"]) == (0, 3, 0)


def test_key_that_was_cut_is_partial_evidence() -> None:
    engine = machine(policy("p", *keyed("path", OPEN, WRITE), key=FIELDS))
    play = Play()
    proc = play.process()
    for cut in (Flag(0), Flag.PATH_TRUNCATED):
        play.event("open", proc, path="/x", cut=cut)
        play.event("write", proc, path="/x")
    assert [m.partial_evidence for m in matches(engine.feed(play.batch()))] == [False, True]


def test_long_key_counts_towards_the_bound_of_evidence() -> None:
    engine = machine(policy("p", *keyed("cmdline", A, B), key=FIELDS))
    play = Play()
    play.event("open", play.process(argv=["x" * 600] * 10), path="/a")
    engine.feed(play.batch())
    assert engine.stats()["evidence_bytes"] > 12_000


def test_ids_tell_keys_apart_and_are_the_same_in_every_run() -> None:
    found: list[str] = []
    for _ in range(2):
        engine = machine(policy("p", *keyed("path > exe", OPEN, step("exec"), OPEN), key=FIELDS))
        play = Play()
        play.event("open", play.process(), path="/x")
        play.event("exec", play.process(exe="/x"))
        play.event("open", play.process(), path="/x")
        engine.feed(play.batch())
        play.event("open", play.process(exe="/x"), path="/y")
        found += [m.id for m in matches(engine.feed(play.batch()))]
    assert len(found) == 2 and len(set(found)) == 1


@pytest.mark.parametrize("position", [0, 1, 2])
def test_reload_keeps_partials_under_keys_of_fields(position: int) -> None:
    mine = policy("p", *keyed("path", OPEN, WRITE), key=FIELDS)
    others = [policy("q", A, B), policy("r", *keyed("uid", A, C), key=FIELDS)]
    engine = machine(mine, *others)
    play = Play()
    play.event("open", play.process(), path="/x")
    engine.feed(play.batch())
    engine.load([*others[:position], mine, *others[position:]], 2)
    play.event("write", play.process(), path="/x")
    (found,) = engine.feed(play.batch())
    assert isinstance(found, Match) and found.generation == 2
