"""How partials of one key overlap, what cancels them, and what holds a match back."""

from __future__ import annotations

import pytest

from execray.schema.catalog import Flag
from policyd.engine.outputs import Excepted, Match, StepDone, handler_applies
from policyd.program import Alert, Handler, KeyKind, Mode, Op, Overlap, State, Transition, Until
from tests.support.playbook import Play
from tests.support.programs import chain, eq, exemption, keyed, policy, step, test, times
from tests.support.stories import A, B, C, Story, events, excepted, machine, matches

FIRST = Mode(Overlap.FIRST)
U = step("open", eq("path", "/u"), alias="u")


def every(copies: int) -> Mode:
    return Mode(Overlap.ALL, copies)


def test_first_keeps_the_older_and_drops_what_comes_to_its_place() -> None:
    engine = machine(policy("p", A, B, C, mode=FIRST))
    assert events(Story().opens("a", "a", "b", "a", "b", "c", "b", "c").told_to(engine)) == [[1, 3, 6]]
    # The second a finds the first's place taken, and the fourth's partial the place behind b.
    assert engine.stats()["replaced"] == 2


def test_partial_that_first_does_not_let_begin_meets_no_step() -> None:
    engine = machine(policy("p", A, B, mode=FIRST, handlers=(Handler((Alert(),), step="a"),)))
    outputs = Story().opens("a", "a", "b").told_to(engine)
    assert [(type(o), o.event.id) for o in outputs if isinstance(o, Match | StepDone)] == [(StepDone, 1), (Match, 3)]


def test_place_that_becomes_free_by_the_same_event_is_taken() -> None:
    same = [step("open", eq("path", "/a"), alias=name) for name in ("one", "two", "three")]
    engine = machine(policy("p", *same, mode=FIRST))
    assert events(Story().opens("a", "a", "a", "a").told_to(engine)) == [[1, 2, 3], [2, 3, 4]]


def test_all_finds_every_combination() -> None:
    engine = machine(policy("p", A, B, C, mode=every(8)))
    outputs = Story().opens("a", "a", "b", "b", "c").told_to(engine)
    assert sorted(events(outputs)) == [[1, 3, 5], [1, 4, 5], [2, 3, 5], [2, 4, 5]]
    assert len({m.id for m in matches(outputs)}) == 4
    outputs = Story().opens("a", "b", "c", "c").told_to(machine(policy("p", A, B, C, mode=every(2))))
    assert events(outputs) == [[1, 2, 3], [1, 2, 4]]


def test_all_keeps_so_many_in_a_place_and_drops_the_oldest() -> None:
    engine = machine(policy("p", A, B, mode=every(2)))
    assert events(Story().opens("a", "a", "a", "b").told_to(engine)) == [[2, 4], [3, 4]]
    assert (engine.stats()["partials"], engine.stats()["replaced"]) == (2, 1)


def test_copies_end_with_their_window() -> None:
    engine = machine(policy("p", A, B, mode=every(4), within_s=10))
    assert events(Story().opens("a@1", "a@5", "b@11", "b@15", "b@15.1").told_to(engine)) == [[1, 3], [2, 3], [2, 4]]
    assert engine.stats()["partials"] == 0


def test_all_moves_every_partial_of_a_tree_that_the_event_is_in() -> None:
    engine = machine(policy("p", A, B, key=KeyKind.TREE, mode=every(4)))
    play = Play()
    top = play.process()
    child = play.process(top)
    for proc, name in ((top, "a"), (child, "a"), (top, "a"), (child, "b")):
        play.event("open", proc, path=f"/{name}")
    assert sorted(m.bindings["a"].id for m in matches(engine.feed(play.batch()))) == [1, 2, 3]


def test_repeat_is_evidence_for_every_copy_that_waits() -> None:
    states = (State((Transition(0, 1),)), State((Transition(2, 2),), (1,)), State(accepting=True))
    engine = machine(policy("p", A, B, C, states=states, mode=every(4)))
    assert events(Story().opens("a", "b", "a", "b", "c").told_to(engine)) == [[1, 2, 4, 5], [3, 4, 5]]


def until(*states: int, step_number: int = 2) -> tuple[Until, ...]:
    return (Until(step_number, states),)


@pytest.mark.parametrize("mode", [Mode(), FIRST, every(2)])
def test_until_cancels_what_waits(mode: Mode) -> None:
    engine = machine(policy("p", A, B, U, states=chain(2), untils=until(0, 1), mode=mode))
    assert events(Story().opens("a", "u", "b", "a", "b").told_to(engine)) == [[4, 5]]
    assert engine.stats()["cancelled"] == 1


def test_until_beats_the_step_that_the_same_event_meets_and_may_begin_anew() -> None:
    engine = machine(policy("p", A, B, step("open", eq("path", "/b")), states=chain(2), untils=until(0, 1)))
    assert Story().opens("a", "b", "b").told_to(engine) == []
    engine = machine(policy("p", A, B, step("open", eq("path", "/a")), states=chain(2), untils=until(0, 1)))
    story = Story().opens("a", "a", "b")
    assert events(story.told_to(engine)) == [[2, 3]]
    assert (engine.stats()["cancelled"], engine.stats()["replaced"]) == (1, 0)


def test_until_of_a_block_holds_only_inside() -> None:
    engine = machine(policy("p", A, B, C, U, states=chain(3), untils=until(2, step_number=3)))
    assert events(Story().opens("a", "u", "b", "c").told_to(engine)) == [[1, 3, 4]]
    assert Story().opens("a", "b", "u", "c").told_to(engine) == []


def test_until_cancels_under_its_own_key_only() -> None:
    steps = keyed("path > path > rawpath", step("open", alias="o"), step("write", alias="w"), step("chmod"))
    engine = machine(policy("p", *steps, states=chain(2), untils=until(0, 1), key=KeyKind.FIELDS))
    play = Play()
    proc = play.process()
    for path in "/x", "/y":
        play.event("open", proc, path=path)
    play.event("chmod", play.process(), rawpath="/x")
    for path in "/x", "/y":
        play.event("write", proc, path=path)
    assert [m.key for m in matches(engine.feed(play.batch()))] == [(b"/y",)]


def test_until_may_refer_to_what_was_met() -> None:
    ends = step("chmod", test("rawpath", Op.EQ, "$o:path"))
    engine = machine(policy("p", step("open", alias="o"), step("write"), ends, states=chain(2), untils=until(0, 1)))
    play = Play()
    one, other = play.process(), play.process()
    for proc, path in ((one, "/x"), (other, "/y")):
        play.event("open", proc, path=path)
        play.event("chmod", proc, rawpath="/x")
        play.event("write", proc, path=path)
    assert [m.actor.id for m in matches(engine.feed(play.batch()))] == [other.id]


def test_until_by_a_member_ends_all_trees_it_is_in() -> None:
    engine = machine(policy("p", A, B, U, states=chain(2), untils=until(0, 1), key=KeyKind.TREE))
    play = Play()
    top = play.process()
    child, sibling = play.process(top), play.process(top)
    for proc, name in ((top, "a"), (child, "a"), (sibling, "a"), (child, "u"), (child, "b"), (sibling, "b")):
        play.event("open", proc, path=f"/{name}")
    assert [m.actor.id for m in matches(engine.feed(play.batch()))] == [sibling.id]


def test_until_ends_what_only_counts_so_far() -> None:
    engine = machine(policy("p", times(A, 2), B, U, states=chain(2), untils=until(0, 1)))
    assert events(Story().opens("a", "u", "a", "b", "a", "b").told_to(engine)) == [[3, 5, 6]]


def test_until_on_a_value_that_was_cut_ends_nothing_but_leaves_doubt() -> None:
    engine = machine(policy("p", A, B, step("open", test("rawpath", Op.NE, "x")), states=chain(2), untils=until(0, 1)))
    story = Story().opens("a")
    story.play.event("open", story.proc, path="/z", rawpath="padding", cut=Flag.RAWPATH_TRUNCATED)
    (match,) = matches(story.opens("b").told_to(engine))
    assert match.partial_evidence


def test_exception_holds_a_match_back_and_the_partial_stays() -> None:
    spare = exemption(eq("uid", 7), "the agent")
    engine = machine(policy("p", A, B, exemptions=(spare,)))
    story = Story().opens("a")
    story.proc.values["uid"] = 7
    story.opens("b", "b")
    story.proc.values["uid"] = 1000
    outputs = story.opens("b").told_to(engine)
    assert [(o.event.id, o.exemption) for o in excepted(outputs)] == [(2, spare), (3, spare)]
    assert [len(o.trail) for o in excepted(outputs)] == [2, 2]
    assert events(outputs) == [[1, 4]]
    assert (engine.stats()["excepted"], engine.stats()["completed"], engine.stats()["partials"]) == (2, 1, 0)
    assert not handler_applies(Handler((Alert(),)), excepted(outputs)[0])


def test_exception_of_a_single_event_leaves_nothing() -> None:
    engine = machine(policy("p", A, within_s=None, exemptions=(exemption(eq("uid", 1000)),)))
    (held,) = Story().opens("a").told_to(engine)
    assert isinstance(held, Excepted)
    assert engine.stats()["partials"] == 0


def test_exception_reads_earlier_steps_and_the_completing_event_by_its_alias() -> None:
    spare = exemption(test("a:rawpath", Op.EQ, "$b:rawpath"))
    engine = machine(policy("p", A, B, exemptions=(spare,)))
    story = Story()
    for raw in "x", "y":
        story.play.event("open", story.proc, path="/a", rawpath="x")
        story.play.event("open", story.proc, path="/b", rawpath=raw)
    outputs = story.told_to(engine)
    assert [type(o) for o in outputs] == [Excepted, Match]


def test_exception_that_can_not_be_judged_is_a_match_of_partial_evidence() -> None:
    engine = machine(policy("p", A, B, exemptions=(exemption(eq("rawpath", "safe")), exemption(eq("uid", 7)))))
    story = Story().opens("a")
    story.play.event("open", story.proc, path="/b", rawpath="safe", cut=Flag.RAWPATH_TRUNCATED)
    (match,) = story.told_to(engine)
    assert isinstance(match, Match) and match.partial_evidence
    story.opens("a")
    story.proc.values["uid"] = 7
    story.play.event("open", story.proc, path="/b", rawpath="safe", cut=Flag.RAWPATH_TRUNCATED)
    assert [type(o) for o in story.told_to(engine)] == [Excepted]


def test_exception_of_a_count_keeps_what_was_counted() -> None:
    only = times(step("open", alias="o"), 3, 10, distinct="path")
    engine = machine(policy("p", only, exemptions=(exemption(eq("path", "/z")),)))
    outputs = Story().opens("x@1", "y@2", "z@3", "y@4", "w@5").told_to(engine)
    # At y@4 the three still stand, and the exception is about the completing event alone.
    assert [o.event.id for o in excepted(outputs)] == [3]
    assert [m.event.id for m in matches(outputs)] == [4]


def test_arrival_takes_the_place_of_a_partial_that_an_exception_left_there() -> None:
    both = step("open", test("path", Op.IN, ("/b", "/c")), alias="c")
    engine = machine(policy("p", A, B, both, exemptions=(exemption(eq("path", "/b")),)))
    assert events(Story().opens("a", "b", "a", "b", "c").told_to(engine)) == [[3, 4, 5]]


def test_benign_end_is_silent() -> None:
    states = (
        State((Transition(0, 1),)),
        State((Transition(1, 2), Transition(2, 3))),
        State(),
        State(accepting=True),
    )
    engine = machine(policy("p", A, B, C, states=states, handlers=(Handler((Alert(),), step="b"),)))
    outputs = Story().opens("a", "b", "c", "a", "c").told_to(engine)
    assert events(outputs) == [[4, 5]]
    assert [o.event.id for o in outputs if isinstance(o, StepDone)] == [2]
    assert (engine.stats()["ended"], engine.stats()["partials"]) == (1, 0)
