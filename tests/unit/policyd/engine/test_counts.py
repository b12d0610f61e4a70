"""Steps that count: so many events, or distinct values, within a window."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.event import Actor, Event
from policyd.engine.outputs import Match, StepDone
from policyd.engine.partials import Limits
from policyd.engine.tally import Counted, Gaps, Tally
from policyd.program import Alert, Handler, KeyKind, Mode, Op, Overlap, State, Times, Transition
from tests.support.playbook import Play
from tests.support.programs import keyed, policy, ref, step, test, times
from tests.support.stories import A, B, C, Story, events, machine, matches

ANY = step("open", alias="any")


def test_lone_count_matches_again_on_every_further_event_while_the_last_lie_in_the_window() -> None:
    engine = machine(policy("p", times(A, 3, 10), within_s=300))
    outputs = Story().opens("a@1", "a@2", "a@3", "a@4", "a@13", "a@14", "a@14.5").told_to(engine)
    assert events(outputs) == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7]]
    assert [m.trail[0].count for m in matches(outputs)] == [3] * 5
    assert [m.bindings["a"].id for m in matches(outputs)] == [3, 4, 5, 6, 7]
    assert len({m.id for m in matches(outputs)}) == 5


def test_count_slides_and_forgets_what_is_older_than_its_window() -> None:
    engine = machine(policy("p", times(A, 3, 10)))
    assert events(Story().opens("a@1", "a@9", "a@12", "a@20", "a@22").told_to(engine)) == [[3, 4, 5]]


def test_window_of_a_count_is_inclusive() -> None:
    engine = machine(policy("p", times(A, 2, 10)))
    assert len(matches(Story().opens("a@1", "a@11").told_to(engine))) == 1
    assert matches(Story().opens("a@1", "a@11.000000001").told_to(machine(policy("p", times(A, 2, 10))))) == []


def test_count_without_a_window_of_its_own_has_the_policys() -> None:
    engine = machine(policy("p", times(A, 3), within_s=10))
    assert events(Story().opens("a@1", "a@9", "a@12", "a@20", "a@22").told_to(engine)) == [[3, 4, 5]]


def test_what_has_been_counted_expires_with_the_last_of_it() -> None:
    engine = machine(policy("p", times(A, 3, 10)))
    story = Story().opens("a@1", "a@8")
    story.told_to(engine)
    engine.advance_clock(story.play.now_ns + 10_000_000_000)
    assert engine.stats()["partials"] == 1
    engine.advance_clock(story.play.now_ns + 10_000_000_001)
    assert (engine.stats()["partials"], engine.stats()["expired"]) == (0, 1)


def test_count_as_the_first_step_leads_on() -> None:
    engine = machine(policy("p", times(A, 3, 10), B, within_s=300))
    outputs = Story().opens("b@1", "a@2", "a@3", "b@4", "a@5", "b@6", "b@7").told_to(engine)
    assert events(outputs) == [[2, 3, 5, 6]]
    assert matches(outputs)[0].started_ns == matches(outputs)[0].trail[0].events[0].time_ns


def test_policys_window_begins_with_the_oldest_event_that_still_counts() -> None:
    # a@1 is forgotten when a@12 comes, so the window of 20 s runs from a@6.
    engine = machine(policy("p", times(A, 3, 10), B, within_s=20))
    assert events(Story().opens("a@1", "a@6", "a@12", "a@15", "b@26").told_to(engine)) == [[2, 3, 4, 5]]
    engine = machine(policy("p", times(A, 3, 10), B, within_s=20))
    assert events(Story().opens("a@1", "a@6", "a@12", "a@15", "b@26.1").told_to(engine)) == []


def test_counted_event_does_not_begin_another_partial() -> None:
    # The second A would begin anew in the place where the first one's partial counts, and so replace it.
    engine = machine(policy("p", A, times(A, 3)))
    assert events(Story().opens("a", "a", "a", "a").told_to(engine)) == [[1, 2, 3, 4]]


def test_count_in_the_middle_slides_in_its_place() -> None:
    engine = machine(policy("p", A, times(B, 2, 5), C, within_s=100))
    assert events(Story().opens("a@1", "b@10", "b@20", "c@21", "b@24", "c@25").told_to(engine)) == [[1, 3, 5, 6]]


def test_newer_partial_in_the_place_of_a_count_begins_to_count_anew() -> None:
    engine = machine(policy("p", A, times(B, 2), C))
    assert events(Story().opens("a", "b", "a", "b", "c", "b", "c").told_to(engine)) == [[3, 4, 6, 7]]


def test_distinct_values_count_once_and_a_match_clears_them() -> None:
    engine = machine(policy("p", times(ANY, 3, 10, distinct="path")))
    outputs = Story().opens("x@1", "x@2", "y@3", "x@4", "z@5", "z@6", "x@7", "y@8").told_to(engine)
    # z@5 completes and clears; z, x, y are three anew.
    assert [m.event.id for m in matches(outputs)] == [5, 8]
    assert [m.trail[0].count for m in matches(outputs)] == [3, 3]
    assert events(outputs) == [[3, 4, 5], [6, 7, 8]]
    assert engine.stats()["partials"] == 0


def test_value_seen_again_stays_and_one_unseen_leaves() -> None:
    engine = machine(policy("p", times(ANY, 2, 10, distinct="path")))
    assert events(Story().opens("x@1", "x@9", "y@15").told_to(engine)) == [[2, 3]]
    engine = machine(policy("p", times(ANY, 2, 10, distinct="path")))
    assert events(Story().opens("x@1", "y@11.5").told_to(engine)) == []


def test_event_without_the_distinct_field_is_not_counted() -> None:
    engine = machine(policy("p", times(ANY, 2, distinct="path")))
    story = Story().opens("x")
    story.play.event("open", story.proc, rawpath="nowhere", ret=-2)
    assert story.told_to(engine) == []
    assert len(matches(story.opens("y").told_to(engine))) == 1


def test_distinct_values_of_a_list_and_of_long_texts() -> None:
    engine = machine(policy("p", *keyed("uid", times(ANY, 3, distinct="argv")), key=KeyKind.FIELDS))
    play = Play()
    for argv in (["a", "bc"], ["ab", "c"], ["a", "bc"], ["x" * 5000]):
        play.event("open", play.process(argv=argv))
    assert [m.event.id for m in matches(engine.feed(play.batch()))] == [4]


def test_counts_are_kept_by_key() -> None:
    engine = machine(policy("p", *keyed("path", times(ANY, 3)), key=KeyKind.FIELDS))
    play = Play()
    for path in "/x", "/y", "/x", "/y", "/x":
        play.event("open", play.process(), path=path)
    assert [(m.key, m.event.id) for m in matches(engine.feed(play.batch()))] == [((b"/x",), 5)]


def test_member_of_a_tree_counts_for_the_tree_begun_last() -> None:
    engine = machine(policy("p", A, times(B, 2), key=KeyKind.TREE))
    play = Play()
    top = play.process()
    child = play.process(top)
    for proc, name in ((top, "a"), (child, "a"), (child, "b"), (top, "b"), (child, "b"), (child, "b")):
        play.event("open", proc, path=f"/{name}")
    found = matches(engine.feed(play.batch()))
    assert [(m.key, m.event.id) for m in found] == [(child.id, 5), (top.id, 6)]


def test_event_that_is_only_counted_may_meet_a_later_alternative() -> None:
    states = (State((Transition(0, 1),)), State((Transition(1, 2), Transition(2, 2))), State(accepting=True))
    either = policy("p", A, times(step("open", test("path", Op.IN, ("/b", "/c")), alias="m"), 3), C, states=states)
    assert events(Story().opens("a", "c", "b", "c").told_to(machine(either))) == [[1, 2]]
    assert events(Story().opens("a", "b", "b", "b").told_to(machine(either))) == [[1, 2, 3, 4]]
    narrow = policy("p", A, C, times(step("open", test("path", Op.IN, ("/b", "/c")), alias="m"), 3), states=states)
    assert events(Story().opens("a", "b", "c").told_to(machine(narrow))) == [[1, 3]]


def test_policy_may_begin_with_one_of_two_counts() -> None:
    states = (State((Transition(0, 1), Transition(1, 1))), State((Transition(2, 2),)), State(accepting=True))
    choice = policy("p", times(A, 2), times(B, 2), C, states=states)
    assert events(Story().opens("a", "b", "a", "c", "b", "c").told_to(machine(choice))) == [[1, 3, 4], [2, 5, 6]]


def test_references_are_counted_by_what_each_partial_has_met() -> None:
    same = times(step("write", test("path", Op.EQ, "$o:path"), alias="w"), 2)
    engine = machine(policy("p", step("open", alias="o"), same))
    play = Play()
    proc = play.process()
    play.event("open", proc, path="/x")
    for path in "/y", "/x", "/y", "/x":
        play.event("write", proc, path=path)
    assert [m.event.id for m in matches(engine.feed(play.batch()))] == [5]


def test_evidence_of_a_long_count_is_its_first_and_last_events_and_the_number() -> None:
    engine = machine(policy("p", times(A, 1000), B), limits=Limits(evidence_events=8))
    story = Story().opens(*["a"] * 1000, "b")
    (match,) = matches(story.told_to(engine))
    assert [e.id for e in match.trail[0].events] == [1, 2, 3, 4, 997, 998, 999, 1000]
    assert (match.trail[0].count, match.bindings["a"].id) == (1000, 1000)


def test_step_handler_runs_when_the_count_is_reached() -> None:
    engine = machine(policy("p", times(A, 2), B, handlers=(Handler((Alert(),), step="a"),)))
    done, match = Story().opens("a", "a", "b").told_to(engine)
    assert isinstance(done, StepDone) and isinstance(match, Match)
    assert (done.event.id, done.trail[0].count) == (2, 2)


def test_process_that_ends_leaves_its_count_for_the_grace_only() -> None:
    for late, found in (("a@12", 1), ("a@12.1", 0)):
        story = Story().opens("a@1")
        story.play.exit(story.proc, at=10)
        engine = machine(policy("p", times(A, 2), within_s=100), limits=Limits(exit_grace_ns=2_000_000_000))
        assert len(matches(story.opens(late).told_to(engine))) == found


def test_weight_of_what_is_counted_is_bounded_and_given_back() -> None:
    engine = machine(policy("p", times(A, 100, 10), B, within_s=20))
    story = Story()
    story.proc.values["argv"] = ["x" * 1000]
    story.opens(*["a"] * 60).told_to(engine)
    assert 0 < engine.stats()["evidence_bytes"] <= 17 * 6 * 256
    engine.advance_clock(story.play.now_ns + 20_000_000_000)
    assert (engine.stats()["partials"], engine.stats()["evidence_bytes"]) == (0, 0)


def test_count_of_doubtful_events_is_partial_evidence_until_they_leave() -> None:
    engine = machine(policy("p", times(A, 2, 10), within_s=100))
    story = Story()
    story.play.event("open", story.proc, path="/a", at=1, cut=Flag.PATH_TRUNCATED)
    found = matches(story.opens("a@2", "a@3", "a@4").told_to(engine))
    assert [m.partial_evidence for m in found] == [True, False, False]


def test_loss_taints_a_count_until_what_came_before_it_leaves() -> None:
    engine = machine(policy("p", times(A, 2, 10), within_s=100))
    story = Story().opens("a@1")
    story.play.lost(1, at=2)
    found = matches(story.opens("a@3", "a@4", "a@5").told_to(engine))
    assert [m.tainted for m in found] == [True, False, False]


def test_every_copy_counts_for_itself() -> None:
    engine = machine(policy("p", A, times(B, 2), C, mode=Mode(Overlap.ALL, 4)))
    outputs = Story().opens("a", "b", "a", "b", "b", "c").told_to(engine)
    # The first A has b4 (2 4) and b5 (4 5), the second b5 (4 5): each combination of a count that was reached, and c.
    assert sorted(events(outputs)) == [[1, 2, 4, 6], [1, 4, 5, 6], [3, 4, 5, 6]]


def _event(number: int) -> Event:
    kind = EVENT_BY_NAME["open"]
    return Event(number, number, kind, Actor(((1, 1),), None), 1, Flag(0), (None,) * len(kind.slots))


def _steps(rng: random.Random) -> Iterator[tuple[int, bytes]]:
    now = 0
    while True:
        now += rng.choice((0, 0, 1, 1, 2, 5))
        yield now, rng.choice((b"x", b"y", b"z", b"w" * 100))


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(2, 6), st.integers(0, 12), st.booleans(), st.integers(0, 10_000))
def test_tally_agrees_with_a_list_of_everything(count: int, window: int, distinct: bool, seed: int) -> None:
    tally = Tally(Times(count, window, ref("path") if distinct else None), window, 6)
    everything: list[tuple[int, int, bytes, bool, int]] = []
    losses = 0
    for number, (now, value) in zip(range(1, 60), _steps(rng := random.Random(seed)), strict=False):
        losses += rng.random() < 0.1
        doubtful = rng.random() < 0.1
        tally.add(Counted(_event(number), 1, now, value, doubtful, Gaps(losses, 0)))
        everything.append((number, now, value, doubtful, losses))
        inside = [one for one in everything if one[1] >= now - window]
        counting = sorted({one[2]: one for one in inside}.values() if distinct else inside)[-count:]
        oldest = min(counting)
        assert (len(tally), tally.reached) == (len(counting), len(counting) == count)
        assert (tally.oldest_ns, tally.gaps.losses) == (oldest[1], oldest[4])
        assert tally.doubtful == any(one[3] for one in counting)
        assert tally.kept[-1].event.id == number
        assert len(tally.kept) <= 6 and tally.weight == len(tally.kept)
        assert {kept.event.id for kept in tally.kept} <= {one[0] for one in inside}
        if count <= 6:
            assert [kept.event.id for kept in tally.kept] == [one[0] for one in counting]
