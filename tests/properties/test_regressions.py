"""Cases in which the engine and the reference once disagreed, with what the language says, worked out by hand."""

from __future__ import annotations

import pytest

from execray.schema.catalog import Flag
from policyd.program import IT, Exemption, Expr, KeyKind, Mode, Not, Op, Overlap, Quantified, State, Transition, Until
from tests.properties.programs import HERE, field
from tests.properties.programs import test as check
from tests.properties.test_semantics import A, B, C, Stage, by, made, stage, times
from tests.support.playbook import Proc
from tests.support.programs import chain, step

__all__ = ["stage"]  # a fixture

FROM_TWO = (State((Transition(0, 1), Transition(1, 1))), State(accepting=True))
LATER_TWO = (State((Transition(0, 1),)), State((Transition(1, 2), Transition(2, 2))), State(accepting=True))


# ---- what is sure


def test_that_a_cut_value_exists_is_sure(stage: Stage) -> None:
    # Section 4: in doubt is a match that depended on the value; that there is one, no byte left out can change.
    stage.opens("/a", 0, cut=Flag.PATH_TRUNCATED)
    (match,) = stage.run(made(step("open", check("path", Op.EXISTS))))
    assert not match.partial_evidence


def test_that_a_line_which_begins_with_init_has_no_further_creator_is_sure(stage: Stage) -> None:
    init = Proc((1, 1), None, stage.one.values)
    stage.opens("/a", 0, stage.play.process(init))
    (match,) = stage.run(made(step("open", Not(check("ancestor[1].exe", Op.EQ, b"/bin/a")))))
    assert not match.partial_evidence


def test_what_a_line_lacks_that_was_cut_is_in_doubt(stage: Stage) -> None:
    stage.opens("/a", 0)
    for condition in (
        Not(check("parent.exe", Op.EQ, b"/x")),
        Not(Quantified(field("ancestor"), check(f"{IT}.exe", Op.EQ, b"/x"))),
    ):
        assert [match.partial_evidence for match in stage.again(made(step("open", condition)))] == [True]


def test_a_value_that_is_counted_again_is_as_sure_as_its_latest_event(stage: Stage) -> None:
    stage.opens("/b", 0)
    stage.opens("/a", 1, cut=Flag.PATH_TRUNCATED)
    stage.opens("/a", 2)
    stage.opens("/c", 3)
    (match,) = stage.run(made(step("open", times=times(3, None, "path"))))
    assert not match.partial_evidence


def test_until_that_holds_in_doubt_cancels_nothing_but_leaves_doubt(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/c", 1, cut=Flag.PATH_TRUNCATED)
    stage.opens("/b", 2)
    wanted = made(step("open", A), step("open", B), step("open", C), states=chain(2), untils=(Until(2, (0, 1)),))
    assert [match.partial_evidence for match in stage.run(wanted)] == [True]


def test_until_that_does_not_hold_in_doubt_leaves_none(stage: Stage) -> None:
    # Otherwise one path that is too long would keep every partial of its process from ever being acted on.
    stage.opens("/a", 0)
    stage.opens("/x", 1, cut=Flag.PATH_TRUNCATED)
    stage.opens("/b", 2)
    wanted = made(step("open", A), step("open", B), step("open", C), states=chain(2), untils=(Until(2, (0, 1)),))
    assert [match.partial_evidence for match in stage.run(wanted)] == [False]


# ---- counts and alternatives


@pytest.mark.parametrize("first", [True, False])
def test_an_event_that_is_only_counted_may_meet_a_later_alternative(stage: Stage, first: bool) -> None:
    # A `times` step is met by the last of its events; one that is counted has decided nothing yet.
    stage.opens("/a", 0)
    done = stage.opens("/b", 1)
    some = check("path", Op.STARTSWITH, (b"/",))
    if first:
        wanted = made(step("open", some, times=times(3)), step("open", B), states=FROM_TWO)
    else:
        wanted = made(step("open", A), step("open", some, times=times(3)), step("open", B), states=LATER_TWO)
    assert [match.event for match in stage.run(wanted)] == [done]


def test_an_alternative_before_a_count_takes_the_event_though_the_count_has_begun(stage: Stage) -> None:
    # "An event that several alternatives accept takes the first in the text."
    stage.opens("/a", 0)
    done = stage.opens("/b", 1)
    some = check("path", Op.STARTSWITH, (b"/",))
    wanted = made(step("open", B), step("open", some, times=times(3)), states=FROM_TWO)
    assert [match.event for match in stage.run(wanted)] == [done]


def test_two_counts_that_one_event_completes_are_one_match(stage: Stage) -> None:
    # Of several alternatives that accept an event the first in the text takes it; the other waits on for one of its own.
    stage.opens("/a", 0)
    both, later = stage.opens("/a", 1), stage.opens("/b", 2)
    some = check("path", Op.STARTSWITH, (b"/",))
    wanted = made(step("open", A, times=times(2)), step("open", some, times=times(2)), states=FROM_TWO)
    assert [(match.event, match.steps[0].step) for match in stage.run(wanted)] == [(both, 0), (later, 1)]


def test_a_count_under_all_finds_each_combination_once(stage: Stage) -> None:
    a, b, c = (stage.opens("/a", at) for at in (0, 1, 2))
    found = stage.matches(made(step("open", A, times=times(2)), mode=Mode(Overlap.ALL, 8)))
    assert found == [[(a, b)], [(b, c)]]


def test_an_event_that_a_later_count_took_begins_nothing(stage: Stage) -> None:
    # It would replace the partial that counts, and a count of what also begins could never be reached.
    first, second, third = (stage.opens("/a", at) for at in (0, 1, 2))
    stage.opens("/a", 3)
    wanted = made(step("open", A), step("open", A, times=times(2)))
    assert stage.matches(wanted) == [[(first,), (second, third)]]


def test_a_distinct_value_counts_by_its_latest_event(stage: Stage) -> None:
    stage.opens("/a", 0)
    again, done = stage.opens("/a", 1), stage.opens("/b", 2.5)
    assert stage.matches(made(step("open", times=times(2, 2, "path")))) == [[(again, done)]]


def test_a_count_that_an_exception_holds_at_its_bound_goes_on_sliding(stage: Stage) -> None:
    stage.opens("/a", 0)
    b, c = stage.opens("/b", 1), stage.opens("/c", 2)
    exemptions = (Exemption(check("path", Op.EQ, b"/b"), "", HERE),)
    assert stage.matches(made(step("open", times=times(2, None, "path")), exemptions=exemptions)) == [[(b, c)]]


# ---- overlap


def test_benign_ends_the_partial_under_all_too(stage: Stage) -> None:
    # Otherwise it would have no effect there: the partial would wait on in the place before the branch.
    stage.opens("/a", 0)
    stage.opens("/b", 1)
    stage.opens("/c", 2)
    states = (*LATER_TWO[:1], State((Transition(1, 3), Transition(2, 2))), State(accepting=True), State())
    steps = (step("open", A), step("open", B), step("open", C))
    assert stage.matches(made(*steps, states=states, mode=Mode(Overlap.ALL, 8))) == []


@pytest.mark.parametrize("mode", [Mode(), Mode(Overlap.FIRST), Mode(Overlap.ALL, 8)])
def test_an_event_that_repeats_begins_nothing_that_would_restart_the_window(stage: Stage, mode: Mode) -> None:
    first, again, done = stage.opens("/a", 0), stage.opens("/a", 1), stage.opens("/b", 2)
    wanted = made(step("open", A), step("open", B), states=chain(2, {1: (0,)}), mode=mode)
    assert stage.matches(wanted) == [[(first, again), (done,)]]


def test_a_key_whose_value_was_cut_puts_the_match_in_doubt(stage: Stage) -> None:
    anything: Expr = check("ret", Op.GE, 0)
    stage.opens("/a", 0, ret=0, cut=Flag.PATH_TRUNCATED)
    stage.opens("/a", 1, ret=0)
    wanted = made(by("open", anything, "path"), by("open", anything, "path"), key=KeyKind.FIELDS)
    assert [match.partial_evidence for match in stage.run(wanted)] == [True]
