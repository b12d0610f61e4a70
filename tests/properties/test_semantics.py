"""Section 5 of the language in examples worked out by hand, for the reference and for the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from execray.schema.catalog import Flag
from execray.wire.frames import Batch
from policyd.program import (
    IT,
    CompiledPolicy,
    Exemption,
    KeyKind,
    Mode,
    Op,
    Overlap,
    Quantified,
    State,
    Step,
    Times,
    Transition,
    Until,
)
from tests.properties.cases import run_engine, run_reference
from tests.properties.programs import HERE, SECOND, field, hashed
from tests.properties.programs import test as check
from tests.support.playbook import Play, Proc
from tests.support.programs import chain, policy, step
from tests.support.reference_partials import Found

A = check("path", Op.EQ, b"/a")
B = check("path", Op.EQ, b"/b")
C = check("path", Op.EQ, b"/c")
D = check("path", Op.EQ, b"/d")


def made(*steps: Step, within_s: float = 300, **options: Any) -> CompiledPolicy:
    """A policy of these steps in a row; options: fields of CompiledPolicy."""
    return hashed(replace(policy("p", *steps, within_s=within_s), **options))


class Stage:
    """A play with one process, in which to open a path is one short word."""

    def __init__(self) -> None:
        self.play = Play()
        self._batch: Batch | None = None
        self.one = self.play.process(exe="/bin/a", uid=1000)

    def opens(self, path: str | None, at: float, who: Proc | None = None, **more: Any) -> int:
        return self.play.event("open", who or self.one, at=at, path=path, **more)

    def run(self, *policies: CompiledPolicy) -> list[Found]:
        """What both matchers find, in order."""
        self._batch = self.play.batch()
        return self.again(*policies)

    def again(self, *policies: CompiledPolicy) -> list[Found]:
        """What both find in the events of the last run, or in the first ones."""
        self._batch = self._batch or self.play.batch()
        wanted = run_reference(policies, [self._batch])
        assert run_engine(policies, [self._batch]) == wanted
        return list(wanted[0])

    def matches(self, *policies: CompiledPolicy) -> list[list[tuple[int, ...]]]:
        """The evidence of each match, step by step."""
        return [[taken.events for taken in found.steps] for found in self.run(*policies) if found.kind == "match"]


@pytest.fixture
def stage() -> Stage:
    return Stage()


# ---- 1: expire


@pytest.mark.parametrize(("second", "matched"), [(2.0, True), (2.001, False)])
def test_a_window_is_inclusive(stage: Stage, second: float, matched: bool) -> None:
    stage.opens("/a", 0)
    stage.opens("/b", second)
    assert bool(stage.matches(made(step("open", A), step("open", B), within_s=2))) is matched


@pytest.mark.parametrize(("third", "matched"), [(3.0, True), (3.001, False)])
def test_a_steps_window_runs_from_the_step_before(stage: Stage, third: float, matched: bool) -> None:
    stage.opens("/a", 0)
    stage.opens("/b", 2)
    stage.opens("/c", third)
    wanted = made(step("open", A), step("open", B), step("open", C, within_ns=SECOND))
    assert bool(stage.matches(wanted)) is matched


def test_a_late_event_is_taken_at_the_clock(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/x", 3)
    late = stage.opens("/a", 0.5)
    done = stage.opens("/b", 4.5)
    assert stage.matches(made(step("open", A), step("open", B), within_s=2)) == [[(late,), (done,)]]


@pytest.mark.parametrize(("second", "matched"), [(3.0, True), (3.001, False)])
def test_the_end_of_a_process_ends_its_partials_two_seconds_later(stage: Stage, second: float, matched: bool) -> None:
    stage.opens("/a", 0)
    stage.play.exit(stage.one, at=1)
    stage.opens("/b", second)
    assert bool(stage.matches(made(step("open", A), step("open", B)))) is matched


def test_another_process_with_the_same_pid_is_another_key(stage: Stage) -> None:
    stage.opens("/a", 0)
    reused = Proc((stage.one.id[0], stage.one.id[1] + 1), None, stage.one.values)
    stage.opens("/b", 1, reused)
    assert stage.matches(made(step("open", A), step("open", B))) == []


# ---- 2: cancel


def test_until_cancels_before_the_same_event_would_advance_and_lets_it_start(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/b", 1)  # both until and the second step
    stage.opens("/b", 2)
    again = stage.opens("/a", 3)
    done = stage.opens("/c", 4)
    until = step("open", B)
    either_b_or_c = step("open", check("path", Op.IN, (b"/b", b"/c")))
    wanted = made(step("open", A), either_b_or_c, until, states=chain(2), untils=(Until(2, (0, 1, 2)),))
    assert stage.matches(wanted) == [[(again,), (done,)]]


def test_until_inside_of_a_block_holds_while_the_partial_is_inside(stage: Stage) -> None:
    first = stage.opens("/a", 0)
    second = stage.opens("/b", 1)
    stage.opens("/d", 2)  # until, but the partial has left state 1
    third = stage.opens("/c", 3)
    steps = (step("open", A), step("open", B), step("open", C), step("open", D))
    assert stage.matches(made(*steps, states=chain(3), untils=(Until(3, (1,)),))) == [[(first,), (second,), (third,)]]


def test_until_cancels_only_partials_of_its_key(stage: Stage) -> None:
    other = stage.play.process()
    first = stage.opens("/a", 0)
    stage.opens("/d", 1, other)
    done = stage.opens("/b", 2)
    steps = (step("open", A), step("open", B), step("open", D))
    assert stage.matches(made(*steps, states=chain(2), untils=(Until(2, (0, 1)),))) == [[(first,), (done,)]]


# ---- keys


def by(events: str, condition: Any, *names: str, **more: Any) -> Step:
    return step(events, condition, key=tuple(field(name) for name in names), **more)


def test_steps_join_by_what_each_names(stage: Stage) -> None:
    other = stage.play.process(exe="/a")
    first = stage.opens("/a", 0)
    done = stage.opens("/x", 1, other)
    wanted = made(by("open", A, "path"), by("open", check("path", Op.EQ, b"/x"), "exe"), key=KeyKind.FIELDS)
    assert stage.matches(wanted) == [[(first,), (done,)]]


def test_parent_and_child_join_by_identity(stage: Stage) -> None:
    first = stage.opens("/a", 0)
    child = stage.play.process(stage.one)
    stage.opens("/b", 1)  # the parent itself isn't its child
    done = stage.opens("/b", 2, child)
    wanted = made(by("open", A, "proc.id"), by("open", B, "parent.proc.id"), key=KeyKind.FIELDS)
    assert stage.matches(wanted) == [[(first,), (done,)]]


def test_a_missing_key_part_means_the_step_is_not_met(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/b", 1)
    assert stage.matches(made(by("open", A, "file.id"), by("open", B, "file.id"), key=KeyKind.FIELDS)) == []


def test_host_is_one_key_for_all(stage: Stage) -> None:
    first = stage.opens("/a", 0)
    done = stage.opens("/b", 1, stage.play.process())
    assert stage.matches(made(by("open", A), by("open", B), key=KeyKind.FIELDS)) == [[(first,), (done,)]]


def test_of_several_trees_the_one_begun_last_takes_the_event(stage: Stage) -> None:
    child = stage.play.process(stage.one)
    grandchild = stage.play.process(child)
    first = stage.opens("/a", 0)
    second = stage.opens("/a", 1, child)
    done = stage.opens("/b", 2, grandchild)
    later = stage.opens("/b", 3, grandchild)
    wanted = made(step("open", A), step("open", B), key=KeyKind.TREE)
    assert stage.matches(wanted) == [[(second,), (done,)], [(first,), (later,)]]


# ---- overlap


@pytest.mark.parametrize(("overlap", "begun"), [(Overlap.LATEST, 1), (Overlap.FIRST, 0)])
def test_a_newer_partial_replaces_the_older_or_is_dropped(stage: Stage, overlap: Overlap, begun: int) -> None:
    starts = stage.opens("/a", 0), stage.opens("/a", 1)
    done = stage.opens("/b", 2)
    stage.opens("/b", 3)
    wanted = made(step("open", A), step("open", B), mode=Mode(overlap))
    assert stage.matches(wanted) == [[(starts[begun],), (done,)]]


def test_under_first_a_partial_that_moves_to_an_occupied_place_is_dropped(stage: Stage) -> None:
    first, second = stage.opens("/a", 0), stage.opens("/b", 1)
    stage.opens("/a", 2)
    stage.opens("/b", 3)
    done = stage.opens("/c", 4)
    stage.opens("/c", 5)
    wanted = made(step("open", A), step("open", B), step("open", C), mode=Mode(Overlap.FIRST))
    assert stage.matches(wanted) == [[(first,), (second,), (done,)]]


def test_all_finds_every_combination_up_to_its_bound(stage: Stage) -> None:
    stage.opens("/a", 0)
    second, third = stage.opens("/a", 1), stage.opens("/a", 2)
    done, again = stage.opens("/b", 3), stage.opens("/b", 4)
    wanted = made(step("open", A), step("open", B), mode=Mode(Overlap.ALL, 2))
    assert stage.matches(wanted) == [[(begun,), (end,)] for end in (done, again) for begun in (second, third)]


# ---- counts


def times(count: int, within_s: float | None = None, distinct: str | None = None) -> Times:
    within_ns = None if within_s is None else round(within_s * SECOND)
    return Times(count, within_ns, field(distinct) if distinct else None)


def test_a_count_alone_matches_again_on_every_further_event(stage: Stage) -> None:
    a, b, c, d = (stage.opens("/a", at) for at in (0, 0.5, 1, 1.5))
    assert stage.matches(made(step("open", A, times=times(3, 2)))) == [[(a, b, c)], [(b, c, d)]]


def test_a_count_forgets_what_is_older_than_its_window(stage: Stage) -> None:
    _, b, c, d = (stage.opens("/a", at) for at in (0, 1, 2.5, 3))
    assert stage.matches(made(step("open", A, times=times(3, 2)))) == [[(b, c, d)]]


def test_a_count_in_the_middle_advances_once_and_its_alias_is_the_last(stage: Stage) -> None:
    first = stage.opens("/a", 0)
    stage.opens("/b", 1)
    b, c = stage.opens("/b", 4), stage.opens("/b", 5)
    stage.opens("/b", 5.5)
    done = stage.opens("/c", 6)
    wanted = made(step("open", A), step("open", B, alias="n", times=times(2, 2)), step("open", C))
    (match,) = stage.run(wanted)
    assert [taken.events for taken in match.steps] == [(first,), (b, c), (done,)]
    assert dict(match.bindings) == {"n": c}


def test_a_window_runs_from_the_oldest_event_that_is_still_counted(stage: Stage) -> None:
    stage.opens("/a", 0)
    a, b = stage.opens("/a", 3), stage.opens("/a", 4)
    done = stage.opens("/b", 6.5)
    wanted = made(step("open", A, times=times(2, 2)), step("open", B), within_s=4)
    assert stage.matches(wanted) == [[(a, b), (done,)]]


def test_distinct_values_are_counted_once_and_a_match_clears_them(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/a", 1)
    second = stage.opens("/b", 2)
    stage.opens(None, 2)  # without a value it isn't counted
    stage.opens("/b", 2.5)
    fourth = stage.opens("/a", 3)
    found = stage.run(made(step("open", times=times(2, 10, "path"))))
    assert [match.event for match in found] == [second, fourth]


def test_a_value_that_left_the_window_is_not_distinct_any_more(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/b", 3)
    done = stage.opens("/c", 4)
    assert [match.event for match in stage.run(made(step("open", times=times(2, 2, "path"))))] == [done]


# ---- accept


def except_uid_0() -> tuple[Exemption, ...]:
    return (Exemption(check("uid", Op.EQ, 0), "root may", HERE),)


def test_an_excepted_completion_leaves_the_partial_where_it_is(stage: Stage) -> None:
    first = stage.opens("/a", 0)
    stage.one.values["uid"] = 0
    held = stage.opens("/b", 1)
    stage.one.values["uid"] = 1000
    done = stage.opens("/b", 2)
    found = stage.run(made(step("open", A), step("open", B), exemptions=except_uid_0()))
    assert [(item.kind, item.reason) for item in found] == [("excepted", "root may"), ("match", "")]
    assert [[taken.events for taken in item.steps] for item in found] == [[(first,), (held,)], [(first,), (done,)]]


def test_an_exception_of_one_event_leaves_no_partial(stage: Stage) -> None:
    stage.one.values["uid"] = 0
    stage.opens("/a", 0)
    assert [found.kind for found in stage.run(made(step("open", A), exemptions=except_uid_0()))] == ["excepted"]


def test_an_exception_in_doubt_holds_nothing_back_but_puts_the_match_in_doubt(stage: Stage) -> None:
    stage.opens("/a", 0, cut=Flag.ARGV_TRUNCATED)
    exemption = Exemption(check("argv", Op.EQ, b"test"), "", HERE)
    found = stage.run(made(step("open", A), exemptions=(exemption,)))
    assert [(item.kind, item.partial_evidence) for item in found] == [("match", True)]


def test_benign_ends_a_partial_in_silence(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens("/b", 1)
    stage.opens("/c", 2)
    states = (
        State((Transition(0, 1),)),
        State((Transition(1, 3), Transition(2, 2))),
        State(accepting=True),
        State(),
    )
    assert stage.matches(made(step("open", A), step("open", B), step("open", C), states=states)) == []


def test_repeats_are_evidence_and_do_not_restart_the_window(stage: Stage) -> None:
    a, b = stage.opens("/a", 0), stage.opens("/a", 1.5)
    done = stage.opens("/b", 2)
    wanted = made(step("open", A), step("open", B), states=chain(2, {1: (0,)}), within_s=2)
    assert stage.matches(wanted) == [[(a, b), (done,)]]
    stage.opens("/a", 10)
    stage.opens("/a", 11.5)
    stage.opens("/b", 12.5)
    assert stage.matches(wanted) == []


# ---- conditions


def test_quantifiers_over_ancestors_and_texts(stage: Stage) -> None:
    child = stage.play.process(stage.one, argv=["-a", "b"])
    stage.opens("/a", 0)
    done = stage.opens("/a", 1, child)
    some = Quantified(field("ancestor"), check(f"{IT}.exe", Op.EQ, b"/bin/a"))
    each = Quantified(field("argv"), check(IT, Op.CONTAINS, (b"a", b"b")), every=True)
    assert stage.matches(made(step("open", A, some, each))) == [[(done,)]]


def test_whether_a_value_was_cut_can_be_tested(stage: Stage) -> None:
    stage.opens("/a", 0)
    stage.opens(None, 1, cut=Flag.PATH_TRUNCATED)
    done = stage.opens("/a", 2, cut=Flag.PATH_TRUNCATED)
    (match,) = stage.run(made(step("open", check("path", Op.TRUNCATED))))
    assert (match.event, match.partial_evidence) == (done, False)
