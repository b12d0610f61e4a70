"""Sequences in one process: order, windows, repeats, choices, the end of the process."""

from __future__ import annotations

from typing import Any

import pytest

from execray.schema.catalog import NO_CONTENT, Content, Flag
from policyd.engine.outputs import Match, SensorLoss, StepDone, handler_applies
from policyd.engine.partials import Limits
from policyd.program import Alert, And, Expr, Handler, Log, Not, Op, Or, Quantified, State, Step, Transition
from tests.support.playbook import Play
from tests.support.programs import chain, eq, policy, ref, step, test
from tests.support.stories import A, B, C, Story, machine, matches, trails


def test_single_event_policy_matches_at_once_and_keeps_nothing() -> None:
    engine = machine(policy("p", A, within_s=None))
    (match,) = matches(Story().opens("a").told_to(engine))
    assert (match.policy.name, match.generation, match.event.id) == ("p", 1, 1)
    assert match.bindings["a"] is match.event
    assert match.actor is match.event.actor
    assert match.key == match.actor.id
    assert not (match.tainted or match.degraded or match.partial_evidence)
    assert engine.stats()["partials"] == 0


def test_steps_match_in_order_with_others_between() -> None:
    outputs = Story().opens("x", "a", "x", "c", "b", "x", "c").told_to(machine(policy("p", A, B, C)))
    assert trails(outputs) == [[("a", 2), ("b", 5), ("c", 7)]]


def test_steps_out_of_order_do_not_match() -> None:
    assert Story().opens("b", "a", "c").told_to(machine(policy("p", A, B))) == []


def test_other_process_does_not_advance_the_sequence() -> None:
    story = Story().opens("a")
    story.proc = story.play.process()
    assert story.opens("b").told_to(machine(policy("p", A, B))) == []


def test_reused_pid_with_another_start_time_is_another_process() -> None:
    story = Story().opens("a")
    story.proc.id = (story.proc.id[0], story.proc.id[1] + 1)
    assert story.opens("b").told_to(machine(policy("p", A, B))) == []


def test_event_that_two_steps_accept_moves_the_partial_once() -> None:
    twice = policy("p", A, step("open", eq("path", "/a"), alias="again"))
    assert trails(Story().opens("a").told_to(machine(twice))) == []
    # The second event completes the first partial and starts one that the third completes.
    assert trails(Story().opens("a", "a", "a").told_to(machine(twice))) == [
        [("a", 1), ("again", 2)],
        [("a", 2), ("again", 3)],
    ]


def test_newer_partial_replaces_the_older_in_the_same_place() -> None:
    engine = machine(policy("p", A, B))
    assert trails(Story().opens("a", "a", "b", "b").told_to(engine)) == [[("a", 2), ("b", 3)]]
    assert engine.stats()["replaced"] == 1


def test_states_advance_from_last_to_first_so_none_is_replaced_before_it_moves() -> None:
    same = [step("open", eq("path", "/a"), alias=name) for name in ("one", "two", "three")]
    outputs = Story().opens("a", "a", "a", "a").told_to(machine(policy("p", *same)))
    assert trails(outputs) == [[("one", 1), ("two", 2), ("three", 3)], [("one", 2), ("two", 3), ("three", 4)]]


def test_window_is_inclusive() -> None:
    within = policy("p", A, B, within_s=10)
    assert trails(Story().opens("a@1", "b@11").told_to(machine(within))) == [[("a", 1), ("b", 2)]]
    engine = machine(within)
    assert Story().opens("a@1", "b@11.000000001").told_to(engine) == []
    assert engine.stats()["expired"] == 1


def test_window_counts_from_the_first_step() -> None:
    assert Story().opens("a@1", "b@6", "c@12").told_to(machine(policy("p", A, B, C, within_s=10))) == []


def test_step_window_counts_from_the_step_before_and_is_inclusive() -> None:
    quick = step("open", eq("path", "/c"), alias="c", within_ns=2_000_000_000)
    timed = policy("p", A, B, quick, within_s=100)
    assert len(Story().opens("a@1", "b@50", "c@52").told_to(machine(timed))) == 1
    engine = machine(timed)
    assert Story().opens("a@1", "b@50", "c@52.000000001").told_to(engine) == []
    assert engine.stats()["expired"] == 1


def test_place_with_one_timed_way_out_lives_on_for_the_other() -> None:
    quick = step("open", eq("path", "/b"), alias="quick", within_ns=1_000_000_000)
    states = (
        State((Transition(0, 1),)),
        State((Transition(1, 2), Transition(2, 2))),
        State(accepting=True),
    )
    choice = policy("p", A, quick, C, states=states)
    assert trails(Story().opens("a@1", "b@3", "c@4").told_to(machine(choice))) == [[("a", 1), ("c", 3)]]
    assert trails(Story().opens("a@1", "b@2", "c@4").told_to(machine(choice))) == [[("a", 1), ("quick", 2)]]


def test_choice_takes_the_first_transition_in_the_text() -> None:
    either = step("open", Or((eq("path", "/b"), eq("path", "/c"))), alias="either")
    states = (State((Transition(0, 1),)), State((Transition(1, 2), Transition(2, 2))), State(accepting=True))
    assert trails(Story().opens("a", "b").told_to(machine(policy("p", A, either, B, states=states)))) == [
        [("a", 1), ("either", 2)]
    ]


def test_policy_may_begin_with_a_choice() -> None:
    states = (
        State((Transition(0, 1), Transition(1, 2))),
        State((Transition(2, 3),)),
        State((Transition(2, 3),)),
        State(accepting=True),
    )
    choice = policy("p", A, B, C, states=states)
    assert trails(Story().opens("b", "c").told_to(machine(choice))) == [[("b", 1), ("c", 2)]]


def test_policy_without_steps_never_matches() -> None:
    assert Story().opens("a").told_to(machine(policy("p", states=(State(accepting=True),)))) == []


def test_repeats_are_evidence_and_do_not_move_or_restart_the_window() -> None:
    repeated = policy("p", A, B, states=chain(2, {1: (0,)}), within_s=10)
    (match,) = matches(Story().opens("a@1", "a@5", "a@9", "b@11").told_to(machine(repeated)))
    assert [(e.step.alias, [event.id for event in e.events], e.count) for e in match.trail] == [
        ("a", [1, 2, 3], 3),
        ("b", [4], 1),
    ]
    assert match.bindings["a"].id == 1
    assert Story().opens("a@1", "a@9", "b@11.5").told_to(machine(repeated)) == []


def test_repeat_that_also_meets_the_next_step_advances() -> None:
    both = step("open", test("path", Op.IN, ("/a", "/b")), alias="both")
    (match,) = matches(Story().opens("a", "b").told_to(machine(policy("p", A, both, states=chain(2, {1: (0, 1)})))))
    assert [(e.step.alias, e.count) for e in match.trail] == [("a", 1), ("both", 1)]


def test_zero_or_more_repeats_of_a_step_that_was_never_met_are_evidence() -> None:
    states = (State((Transition(0, 1),)), State((Transition(2, 2),), (1,)), State(accepting=True))
    (match,) = matches(Story().opens("a", "b", "b", "c").told_to(machine(policy("p", A, B, C, states=states))))
    assert [(e.step.alias, e.count) for e in match.trail] == [("a", 1), ("b", 2), ("c", 1)]
    assert match.bindings["b"].id == 2


def test_kept_evidence_is_bounded_and_the_rest_counted() -> None:
    repeated = policy("p", A, B, states=chain(2, {1: (0,)}))
    story = Story().opens(*["a"] * 100, "b")
    (match,) = matches(story.told_to(machine(repeated, limits=Limits(evidence_events=16))))
    assert (len(match.trail[0].events), match.trail[0].count) == (16, 100)
    assert match.trail[1].events[0].id == 101


def test_references_to_earlier_steps_decide() -> None:
    same = step("write", test("path", Op.EQ, "$a:rawpath"), alias="w")
    engine = machine(policy("p", step("open", alias="a"), same))
    story = Story()
    story.play.event("open", story.proc, path="/real", rawpath="link")
    story.play.event("write", story.proc, path="/real", len=1)
    assert story.told_to(engine) == []
    story.play.event("write", story.proc, path="link", len=1)
    assert trails(story.told_to(engine)) == [[("a", 1), ("w", 3)]]


def test_content_is_tested_and_never_cached() -> None:
    leak = step("write", test("content", Op.MATCH, ("root",)), alias="w")
    engine = machine(policy("p", leak))
    story = Story()
    for content in ("no", "xx root", "nothing"):
        story.play.event("write", story.proc, content=content)
    assert trails(story.told_to(engine)) == [[("w", 2)]]
    assert engine.stats()["row_cache_entries"] == 0
    assert engine.needs().content


def test_condition_on_a_field_that_some_of_the_steps_events_lack() -> None:
    # `mode` is open's and chmod's, never write's.
    lacking = step("open|write", Or((test("mode", Op.HAS, 1), eq("uid", 7))), alias="s")
    negated = step("open|write", Not(test("mode", Op.HAS, 1)), alias="n")
    engine = machine(policy("p", lacking), policy("n", negated))
    story = Story()
    story.play.event("write", story.proc, fd=1)
    story.play.event("open", story.proc, mode=1)
    story.proc.values["uid"] = 7
    story.play.event("write", story.proc, fd=1)
    assert [(m.policy.name, m.event.id) for m in matches(story.told_to(engine))] == [
        ("n", 1),
        ("p", 2),
        ("p", 3),
        ("n", 3),
    ]


def test_parents_fields_are_tested_and_missing_without_a_parent() -> None:
    child_of_init = step("open", test("parent.exe", Op.EQ, "/sbin/init"), alias="o")
    orphan = step("open", Not(test("parent.exe", Op.EXISTS)), alias="o")
    engine = machine(policy("child", child_of_init), policy("orphan", orphan))
    story = Story()
    init = story.play.process(exe="/sbin/init")
    story.play.event("open", init)
    story.play.event("open", story.play.process(init, exe="/bin/x"))
    assert [(m.policy.name, m.event.id) for m in matches(story.told_to(engine))] == [("orphan", 1), ("child", 2)]


def test_partials_outlive_their_process_by_the_grace_only() -> None:
    pair = policy("p", A, B, within_s=100)
    limits = Limits(exit_grace_ns=2_000_000_000)
    for late, found in (("b@12", 1), ("b@12.000000001", 0)):
        story = Story().opens("a@1")
        story.play.exit(story.proc, at=10)
        assert len(story.opens(late).told_to(machine(pair, limits=limits))) == found


def test_exit_is_also_an_event_that_a_step_can_name() -> None:
    story = Story().opens("a")
    story.play.exit(story.proc)
    assert len(story.told_to(machine(policy("p", A, step("exit", alias="end"))))) == 1


def test_grace_also_ends_a_partial_that_moves_after_the_exit() -> None:
    story = Story().opens("a@1")
    story.play.exit(story.proc, at=10)
    assert story.opens("b@11", "c@13").told_to(machine(policy("p", A, B, C))) == []


def test_exit_of_another_process_changes_nothing() -> None:
    story = Story().opens("a@1")
    story.play.exit(story.play.process(), at=2)
    assert len(story.opens("b@100").told_to(machine(policy("p", A, B)))) == 1


def test_late_event_is_counted_and_taken_at_the_clock() -> None:
    engine = machine(policy("p", A, B, within_s=10))
    assert len(Story().opens("a@5", "x@14", "b@2").told_to(engine)) == 1
    assert engine.stats()["late"] == 1
    # Its own time would keep the window open; the clock closes it.
    engine = machine(policy("p", A, B, within_s=10))
    assert Story().opens("x@20", "a@1", "x@30.5", "b@2").told_to(engine) == []


def test_heartbeats_expire_partials_and_never_turn_the_clock_back() -> None:
    engine = machine(policy("p", A, B, within_s=10))
    story = Story()
    story.opens("a@1").told_to(engine)
    first = story.play.now_ns
    engine.advance_clock(first + 10_000_000_000)
    assert engine.stats()["partials"] == 1
    engine.advance_clock(first)
    engine.advance_clock(first + 10_000_000_001)
    assert (engine.stats()["partials"], engine.stats()["expired"]) == (0, 1)
    assert engine.stats()["evidence_bytes"] == 0


def test_loss_taints_what_was_open_and_is_reported() -> None:
    engine = machine(policy("p", A, B))
    story = Story().opens("a")
    story.play.lost(7, "ring")
    outputs = story.opens("b", "a", "b").told_to(engine)
    loss, over_gap, after = outputs
    assert isinstance(loss, SensorLoss)
    assert (loss.where, loss.count, loss.time_ns - loss.since_ns) == ("ring", 7, 1_000_000)
    assert isinstance(over_gap, Match) and over_gap.tainted
    assert isinstance(after, Match) and not after.tainted
    assert engine.stats()["lost"] == 7


def test_loss_that_is_noticed_late_ends_nothing_that_is_still_on_its_way() -> None:
    engine = machine(policy("p", A, B, within_s=2))
    story = Story().opens("a@0")
    story.play.lost(1, at=5)
    outputs = story.opens("b@1").told_to(engine)
    assert [type(output) for output in outputs] == [SensorLoss, Match]
    assert (engine.stats()["expired"], engine.stats()["late"]) == (0, 0)


@pytest.mark.parametrize(
    ("flag", "partial"),
    [
        (Flag.PATH_TRUNCATED, True),
        (Flag.PATH_TORN, True),
        (Flag.PATH_DETACHED, True),
        (Flag.DELETED, False),
        (Flag.CONTENT_TRUNCATED, False),
    ],
)
def test_match_on_a_cut_value_says_so(flag: Flag, partial: bool) -> None:
    story = Story()
    story.play.event("open", story.proc, path="/a", cut=flag)
    (match,) = matches(story.opens("b").told_to(machine(policy("p", A, B))))
    assert match.partial_evidence is partial


def test_what_is_sure_of_an_or_is_enough() -> None:
    # Else a name padded past its limit would buy off the kill for a program that is known by its path.
    either = Or((test("exe", Op.STARTSWITH, b"/tmp/"), test("filename", Op.STARTSWITH, b"/tmp/")))
    engine = machine(policy("p", step("exec", either)))
    story = Play()
    for exe in ("/tmp/x", "/bin/sh"):
        story.event("exec", story.process(exe=exe), cut=Flag.RAWPATH_TRUNCATED, filename="/tmp/././", ret=0)
    assert [m.partial_evidence for m in matches(engine.feed(story.batch()))] == [False, True]


@pytest.mark.parametrize(
    ("condition", "actor"),
    [
        (Not(eq("exe", "/usr/bin/known")), {"exe": None}),
        (Not(eq("name", "known")), {"exe": None}),
        (Not(test("argv", Op.CONTAINS, b"--known")), {"argv": None}),
        (Not(eq("parent.exe", "/usr/bin/known")), {}),
    ],
)
def test_exception_that_can_not_be_judged_is_partial_evidence(condition: Expr, actor: dict[str, Any]) -> None:
    engine = machine(policy("p", step("open", And((eq("path", "/x"), condition)))))
    story = Play()
    story.event("open", story.process(**actor), path="/x", ret=3)
    assert [m.partial_evidence for m in matches(engine.feed(story.batch()))] == [True]


def test_cut_value_that_only_a_handler_reads_is_partial_evidence_too() -> None:
    handler = Handler((Alert(),), condition=test("o:rawpath", Op.ENDSWITH, (b"x",)))
    story = Story()
    story.play.event("open", story.proc, rawpath="x", cut=Flag.RAWPATH_TRUNCATED)
    (match,) = matches(story.told_to(machine(policy("p", step("open", alias="o"), handlers=(handler,)))))
    assert match.partial_evidence


def test_match_on_what_could_not_be_read_is_partial_evidence() -> None:
    unread = step("setuid", Not(eq("old.uid", 0)), alias="s")
    engine = machine(policy("p", unread))
    story = Story()
    story.play.event("setuid", story.proc, new_uid=0, cut=Flag.OLD_CREDS_UNKNOWN)
    story.play.event("setuid", story.proc, new_uid=0, old_uid=1000)
    assert [m.partial_evidence for m in matches(story.told_to(engine))] == [True, False]


def test_step_handlers_get_an_output_when_their_step_is_met() -> None:
    handlers = (
        Handler((Log(),), step="a"),
        Handler((Alert(),), step="b", condition=eq("uid", 0)),
        Handler((Alert(),), condition=test("a:path", Op.EQ, "$path")),
        Handler((Alert(),), condition=test("a:path", Op.NE, "$path")),
    )
    done_a, done_b, match = (
        Story().opens("a", "b").told_to(machine(policy("p", A, B, C, B, handlers=handlers, states=chain(2))))
    )
    assert isinstance(done_a, StepDone) and isinstance(done_b, StepDone) and isinstance(match, Match)
    assert (done_a.step.alias, done_b.step.alias) == ("a", "b")
    assert [e.step.alias for e in done_a.trail] == ["a"]
    assert [handler_applies(h, done_a) for h in handlers] == [True, False, False, False]
    assert [handler_applies(h, done_b) for h in handlers] == [False, False, False, False]
    assert [handler_applies(h, match) for h in handlers] == [False, False, False, True]
    assert len({done_a.id, done_b.id, match.id}) == 3


def test_handler_in_a_block_runs_only_for_matches_through_it() -> None:
    inside = step("open", eq("path", "/b"), labels=("shell", "inner"))
    states = (State((Transition(0, 1),)), State((Transition(1, 2), Transition(2, 2))), State(accepting=True))
    handlers = (Handler((Alert(),), labels=("shell",)), Handler((Alert(),), labels=("other",)))
    branching = policy("p", A, inside, C, states=states, handlers=handlers)
    (through,) = matches(Story().opens("a", "b").told_to(machine(branching)))
    (around,) = matches(Story().opens("a", "c").told_to(machine(branching)))
    assert [handler_applies(h, through) for h in handlers] == [True, False]
    assert [handler_applies(h, around) for h in handlers] == [False, False]
    assert through.labels == ("shell", "inner")


def test_ids_are_the_same_in_every_run_and_differ_between_matches() -> None:
    pair = policy("p", A, B)
    first = [m.id for m in matches(Story().opens("a", "b", "a", "b").told_to(machine(pair)))]
    again = [m.id for m in matches(Story().opens("a", "b", "a", "b").told_to(machine(policy("q", C), pair)))]
    assert first == again
    assert len(set(first)) == 2
    other = matches(Story().opens("a", "b").told_to(machine(policy("p", A, B, version=2))))
    assert other[0].id not in first


def test_needs_name_the_events_of_all_policies() -> None:
    engine = machine(policy("p", A, step("connect")), policy("q", step("chmod|open")))
    assert engine.needs().codes == {4, 6, 7}
    assert not engine.needs().content


@pytest.mark.parametrize(
    ("steps", "content"),
    [
        ((step("write", test("content", Op.CONTAINS, ("x",))), step("read")), Content.WRITE),
        ((step("write"), step("read", test("content", Op.CONTAINS, ("x",)))), Content.READ),
        ((step("read|write|open", test("content", Op.CONTAINS, ("x",))),), Content.WRITE | Content.READ),
        ((step("exec", Quantified(ref("env"), Not(test("uid", Op.EQ, 0)))),), Content.ENV),
        ((step("read", alias="r"), step("write", eq("path", "$r:content"))), Content.READ),
        ((step("open|chmod", test("rawpath", Op.CONTAINS, ("x",))),), Content.SPELLING),
        ((step("create", alias="c"), step("write", eq("path", "$c:rawpath"))), Content.SPELLING),
        ((step("chmod|rename", test("rawpath", Op.CONTAINS, ("x",))),), NO_CONTENT),
    ],
    ids=["write", "read", "both", "environment", "earlier", "spelling", "earlier spelling", "always there"],
)
def test_only_the_bytes_that_a_condition_reads_are_needed(steps: tuple[Step, ...], content: Content) -> None:
    assert machine(policy("p", *steps)).needs().content == content


def test_handler_that_reads_content_asks_for_it() -> None:
    handler = Handler((Alert(),), condition=test("w:content", Op.CONTAINS, ("x",)))
    assert machine(policy("p", step("write", alias="w"), handlers=(handler,))).needs().content


def test_repeat_for_a_partial_that_the_same_event_replaces_is_dropped_with_it() -> None:
    again = step("open", eq("path", "/a"), alias="again")
    engine = machine(policy("p", A, again, B, states=chain(3, {2: (1,)})))
    # The third `a` repeats in place 2 and also brings the second's partial there.
    assert trails(Story().opens("a", "a", "a", "b").told_to(engine)) == [[("a", 2), ("again", 3), ("b", 4)]]


def test_partials_complete_from_the_last_place_to_the_first() -> None:
    states = (
        State((Transition(0, 1),)),
        State((Transition(1, 2), Transition(2, 3))),
        State((Transition(2, 3),)),
        State(accepting=True),
    )
    assert trails(Story().opens("a", "b", "a", "c").told_to(machine(policy("p", A, B, C, states=states)))) == [
        [("a", 1), ("b", 2), ("c", 4)],
        [("a", 3), ("c", 4)],
    ]


def test_of_two_arrivals_in_one_place_the_one_from_the_earlier_place_stays() -> None:
    states = (
        State((Transition(0, 1),)),
        State((Transition(1, 2), Transition(2, 3))),
        State((Transition(2, 3),)),
        State((Transition(0, 4),)),
        State(accepting=True),
    )
    assert trails(
        Story().opens("a@1", "b@2", "a@3", "c@4", "a@5").told_to(machine(policy("p", A, B, C, states=states)))
    ) == [
        [("a", 3), ("c", 4), ("a", 5)],
    ]


def test_event_that_nothing_awaits_any_more_does_not_fire() -> None:
    engine = machine(policy("p", A, B), policy("q", A, C))
    Story().opens("a", "b", "b", "b").told_to(engine)
    assert engine.stats()["fired"] == 2
