"""What bounds the engine's memory, and who pays when a bound is reached."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.wire.frames import Batch
from policyd.engine.atoms import Effect, View
from policyd.engine.evidence import ActorCache, Known, Resolver
from policyd.engine.heap import DeadlineHeap
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match, Output, SensorLoss
from policyd.engine.partials import Limits
from policyd.engine.shares import Held, Owner, Ranking, Shares
from policyd.program import KeyKind, Op
from tests.support.playbook import Play, Proc
from tests.support.programs import chain, eq, policy, ref, step, test

A = step("open", eq("path", "/a"), alias="a")
B = step("open", eq("path", "/b"), alias="b")


def machine(limits: Limits, max_partials: int = 1024) -> Machine:
    engine = Machine(limits)
    engine.load([policy("p", A, B, max_partials=max_partials)], 1)
    return engine


def test_user_who_holds_most_is_evicted_and_others_keep_their_partials() -> None:
    for engine in (machine(Limits(max_partials=10)), machine(Limits(), max_partials=10)):
        play = Play()
        quiet = [play.process(uid=uid) for uid in (1, 2)]
        for proc in quiet:
            play.event("open", proc, path="/a")
        flood = [play.process(uid=666) for _ in range(100)]
        for proc in flood:
            play.event("open", proc, path="/a")
        assert engine.feed(play.batch()) == []
        assert (engine.stats()["partials"], engine.stats()["evicted"]) == (10, 92)
        for proc in (*quiet, *flood):
            play.event("open", proc, path="/b")
        outputs = engine.feed(play.batch())
        assert [o.actor.id for o in outputs if isinstance(o, Match)] == [p.id for p in (*quiet, *flood[-8:])]
        assert all(o.degraded for o in outputs if isinstance(o, Match) and o.actor.slots[1] != 666)


@pytest.mark.parametrize(
    ("quiet", "flood"),
    [
        # The same user, elsewhere.
        ({"uid": 0, "cgroup_id": 1}, {"uid": 0, "cgroup_id": 2}),
        ({"uid": 0, "cgroup_id": 1}, {"uid": 0, "cgroup_id": 2, "container_id": "b" * 64}),
        ({"uid": 0, "cgroup_id": 1, "container_id": "a" * 64}, {"uid": 0, "cgroup_id": 2, "container_id": "b" * 64}),
        # Other users, elsewhere, and ever another one: what root of a container may be.
        ({"uid": 5, "cgroup_id": 1}, {"uid": range(100), "cgroup_id": 2, "container_id": "b" * 64}),
        ({"uid": 5, "cgroup_id": 1}, {"uid": range(100), "cgroup_id": 2}),
        # A user who may make cgroups, and a container that does.
        ({"uid": 5, "cgroup_id": 1}, {"uid": 1000, "cgroup_id": range(100, 200)}),
        ({"uid": 0, "cgroup_id": 1}, {"uid": 0, "cgroup_id": range(100, 200), "container_id": "b" * 64}),
    ],
)
def test_nobody_pushes_out_what_another_group_of_processes_has_begun(
    quiet: dict[str, Any], flood: dict[str, Any]
) -> None:
    for engine in (machine(Limits(max_partials=10)), machine(Limits(), max_partials=10)):
        play = Play()
        some = [play.process(None, **quiet) for _ in range(3)]
        many = [
            play.process(
                None, **{name: value[at] if isinstance(value, range) else value for name, value in flood.items()}
            )
            for at in range(100)
        ]
        for proc in (*some, *many):
            play.event("open", proc, path="/a")
        engine.feed(play.batch())
        for proc in some:
            play.event("open", proc, path="/b")
        assert [o.actor.id for o in engine.feed(play.batch()) if isinstance(o, Match)] == [proc.id for proc in some]


def test_match_of_a_partial_begun_after_the_evictions_is_not_degraded() -> None:
    engine = machine(Limits(max_partials=1))
    play = Play()
    for _ in range(3):
        proc = play.process()
        play.event("open", proc, path="/a")
    engine.feed(play.batch())
    play.event("open", proc, path="/a")
    play.event("open", proc, path="/b")
    (match,) = engine.feed(play.batch())
    assert isinstance(match, Match) and not match.degraded


def test_kept_text_is_bounded_and_the_one_with_the_long_arguments_pays() -> None:
    engine = machine(Limits(evidence_bytes=256 * 1024))
    play = Play()
    small = play.process(uid=1, argv=["x"])
    play.event("open", small, path="/a")
    for _ in range(20):
        play.event("open", play.process(uid=2, argv=["y" * 60_000]), path="/a")
    engine.feed(play.batch())
    stats = engine.stats()
    assert stats["evidence_bytes"] <= 256 * 1024
    assert stats["partials"] == 1 + 4
    play.event("open", small, path="/b")
    assert len(engine.feed(play.batch())) == 1


def test_a_long_line_of_creators_weighs_what_it_takes_and_an_ordinary_one_its_text() -> None:
    weights = {}
    for depth in (0, 10, 200):
        engine, play = machine(Limits()), Play()
        proc = play.process()
        for _ in range(depth):
            proc = play.process(parent=proc)
        play.event("open", proc, path="/a")
        engine.feed(play.batch())
        weights[depth] = engine.stats()["evidence_bytes"]
    assert weights[10] - weights[0] < 2048
    assert weights[200] > 180 * 1024


def test_repeats_count_towards_the_bound_of_text() -> None:
    engine = Machine(Limits(evidence_bytes=8 * 1024))
    engine.load([policy("p", A, B, states=chain(2, {1: (0,)}))], 1)
    play = Play()
    proc = play.process(argv=["x" * 1000])
    for _ in range(16):
        play.event("open", proc, path="/a")
    engine.feed(play.batch())
    assert engine.stats()["evidence_bytes"] <= 8 * 1024
    assert engine.stats()["evicted"] >= 1


def test_every_partial_gone_leaves_nothing_behind() -> None:
    engine = Machine()
    engine.load([policy("p", A, B, within_s=10), policy("t", A, B, within_s=5, key=KeyKind.TREE)], 1)
    play = Play()
    for _ in range(500):
        play.event("open", play.process(uid=random.randrange(5)), path="/a")
    engine.feed(play.batch())
    assert engine.stats()["partials"] == 1000
    engine.advance_clock(play.now_ns + 20_000_000_000)
    stats = engine.stats()
    assert (stats["partials"], stats["expired"], stats["evidence_bytes"]) == (0, 1000, 0)


def test_row_cache_forgets_the_older_half_when_full_and_counts_that() -> None:
    engine = machine(Limits(row_entries=10))
    play = Play()
    proc = play.process()
    for number in range(35):
        play.event("open", proc, path=f"/{number}")
    play.event("open", proc, path="/a")
    play.event("open", proc, path="/b")
    assert len(engine.feed(play.batch())) == 1
    stats = engine.stats()
    assert stats["row_cache_entries"] <= 10
    assert (stats["row_cache_misses"], stats["row_cache_clears"]) == (37, 7)


def test_words_of_commands_are_looked_at_only_where_a_step_that_is_left_asks_for_them() -> None:
    engine = Machine()
    asks = step("exec", eq("exe", "/bin/asks"), test("argv", Op.CONTAINS, ("-x",)))
    of_parent = step("exec", eq("exe", "/bin/asks"), test("parent.argv", Op.CONTAINS, ("-y",)))
    engine.load([policy("p", asks), policy("q", of_parent), policy("r", step("open", eq("path", "/a")))], 1)
    play = Play()
    for number in range(20):
        proc = play.process(play.process(argv=["y", f"-y{number}"]), argv=["x", f"-x{number}"])
        play.event("open", proc, path="/a")
        play.event("exec", proc)
    assert _names(engine.feed(play.batch())) == ["r"] * 20
    before = engine.stats()["row_cache_misses"]
    assert before == 2  # a path, a program
    for number in range(20):
        play.event(
            "exec", play.process(play.process(argv=["y", f"-y{number}"]), exe="/bin/asks", argv=["x", f"-x{number}"])
        )
    play.event("exec", play.process(exe="/bin/asks", argv=["-x"]))  # whose parent nobody knows
    found = _names(engine.feed(play.batch()))
    assert found == ["p", "q"] * 20 + ["p"]
    assert engine.stats()["row_cache_misses"] == before + 1 + 40 + 1


def _names(outputs: list[Output]) -> list[str]:
    return [output.policy.name for output in outputs if isinstance(output, Match)]


def _broken(batch: Batch, position: int, at: int, value: object) -> Batch:
    events = list(batch.events)
    row = list(events[position])
    row[at] = value
    events[position] = tuple(row)
    return Batch(batch.seq, batch.first_id, batch.strings, batch.actors, tuple(events))


def test_malformed_event_counts_as_lost_and_the_rest_is_taken() -> None:
    for at, value in ((5, 999), (5, "text"), (5, b"x"), (3, "tid")):
        engine = machine(Limits())
        play = Play()
        proc = play.process()
        play.event("open", proc, path="/a")
        play.event("open", proc, path="/a")
        play.event("open", proc, path="/b")
        loss, match = engine.feed(_broken(play.batch(), 1, at, value))
        assert isinstance(loss, SensorLoss) and (loss.where, loss.count) == ("stream", 1)
        assert isinstance(match, Match) and match.tainted
        assert (engine.stats()["malformed"], engine.stats()["lost"]) == (1, 1)


def test_malformed_loss_row_is_reported_as_a_loss() -> None:
    engine = machine(Limits())
    play = Play()
    play.lost(3)
    (loss,) = engine.feed(_broken(play.batch(), 0, 3, "many"))
    assert isinstance(loss, SensorLoss) and loss.count == 1


def test_chain_of_parents_that_is_a_circle_is_refused() -> None:
    engine = Machine()
    engine.load([policy("p", A, B, key=KeyKind.TREE)], 1)
    play = Play()
    proc = play.process(play.process())
    play.event("open", proc, path="/a")
    batch = play.batch()
    actors = tuple((1 - index, *row[1:]) for index, row in enumerate(batch.actors))
    (loss,) = engine.feed(Batch(1, 1, batch.strings, actors, batch.events))
    assert isinstance(loss, SensorLoss)


@dataclass(eq=False)
class _Item:
    deadline_ns: int
    heap_index: int = -1


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove", "move", "replace", "pop"]), st.integers(0, 50), st.integers(0, 9))
    )
)
def test_heap_always_knows_the_earliest_deadline(actions: list[tuple[str, int, int]]) -> None:
    heap: DeadlineHeap[_Item] = DeadlineHeap()
    live: list[_Item] = []
    for action, deadline, pick in actions:
        if action == "add":
            live.append(_Item(deadline))
            heap.add(live[-1])
        elif live:
            item = live[pick % len(live)]
            if action == "move":
                item.deadline_ns = deadline
                heap.moved(item)
            elif action == "replace":
                live[live.index(item)] = fresh = _Item(deadline)
                heap.replace(item, fresh)
                assert item.heap_index == -1
            else:
                if action == "pop":
                    assert heap.first is not None
                    item = heap.first
                live.remove(item)
                heap.remove(item)
        assert len(heap) == len(live)
        assert (heap.first.deadline_ns if heap.first else None) == min((i.deadline_ns for i in live), default=None)


_OWNERS = st.builds(Owner, st.integers(0, 3), st.sampled_from([1, 2, b"box"]))


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "add", "remove", "replace", "evict"]), _OWNERS, st.integers(1, 9)),
        max_size=60,
    )
)
def test_shares_name_the_longest_held_entry_of_who_holds_most(actions: list[tuple[str, Owner, int]]) -> None:
    shares: Shares[Held] = Shares()
    pool: Shares[Held] = Shares(pool=True)  # each is in two, and they don't get in each other's way
    live: list[Held] = []
    for action, owner, weight in actions:
        if action == "add" or not live:
            live.append(_held(owner, weight))
            shares.add(live[-1])
            pool.add(live[-1])
        elif action == "replace":
            old = live.pop(weight % len(live))
            live.append(_held(owner, weight))
            shares.replace(old, live[-1])
            pool.replace(old, live[-1])
        elif action == "remove":
            gone = live.pop(weight % len(live))
            shares.remove(gone)
            pool.remove(gone)
        else:  # it is asked for now and then only
            victim = shares.victim()
            assert victim.owner in _heaviest(live)
            assert victim is next(item for item in live if item.owner == victim.owner)
            live.remove(victim)
            shares.remove(victim)
            pool.remove(victim)
        for one in (shares, pool):
            assert (one.count, one.weight) == (len(live), sum(item.weight for item in live))
            for whose in {item.owner for item in live}:
                in_order = [item for item in one if item.owner == whose]
                assert in_order == [item for item in live if item.owner == whose]


def test_words_of_a_list_are_remembered_within_a_bound_and_mean_the_same_after_it() -> None:
    view = View(ref("argv"), derived=False, fold=False)
    view.add(test("argv", Op.MATCH, ("^-x[0-9]+$",)), 0)
    view.build(lambda atoms: Effect((), 0, tuple(atoms)))
    for number in range(3000):
        for words, met in ((b"a%d -x%d", 1), (b"a%d y%d", 0), (b"a%d -x7 -x%d " + b"long" * 50, 2)):
            found: list[Effect] = []
            view.collect(tuple((words % (number, number)).split()), found)
            assert len(found) == met
        assert view.words <= 1024


def _held(owner: Owner, weight: int) -> Held:
    held = Held(owner, 0)
    held.weight = weight
    return held


def _heaviest(live: list[Held]) -> set[Owner]:
    """Those from whom it is right to take: of the heaviest user its heaviest group, or the other way round."""

    def held(**wanted: object) -> int:
        return sum(i.weight for i in live if all(getattr(i.owner, name) == value for name, value in wanted.items()))

    owners = {item.owner for item in live}
    most = max(max(held(uid=owner.uid), held(group=owner.group)) for owner in owners)
    found: set[Owner] = set()
    users = {owner.uid for owner in owners if held(uid=owner.uid) == most}
    groups = {owner.group for owner in owners if held(group=owner.group) == most}
    for uid in users:
        of_user = {owner: held(**owner._asdict()) for owner in owners if owner.uid == uid}
        found |= {owner for owner, weight in of_user.items() if weight == max(of_user.values())}
    for group in groups if not users else ():
        of_group = {owner: held(**owner._asdict()) for owner in owners if owner.group == group}
        found |= {owner for owner, weight in of_group.items() if weight == max(of_group.values())}
    return found


def test_ranking_stays_within_a_bound_however_often_weights_rise_and_fall() -> None:
    ranking: Ranking[int] = Ranking()
    for name in range(40):
        ranking.shift(name, 1)
    for _ in range(100):
        for name in range(40):
            ranking.shift(name, 100)
            assert ranking.heaviest() == (101, name)
            ranking.shift(name, -100)
            ranking.heaviest()
    assert ranking.entries < 200


def test_an_actor_that_is_told_in_two_ways_in_turns_is_one_object_for_each() -> None:
    play, cache = Play(), ActorCache()
    shell = play.process(argv=["sh", "-c", "x" * 2000])
    child = play.process(shell, argv=["cat"])
    seen: dict[str, set[int]] = {"own": set(), "line": set()}
    kept = []
    for _ in range(4):
        for name, actor, argv in (("own", shell, ["sh", "-c", "x" * 2000]), ("line", child, ["sh"])):
            shell.values["argv"] = argv
            play.event("open", actor, path="/a")
            found = Resolver(play.batch(), cache).event(0).actor
            kept.append(found)  # or the next object may have its id
            seen[name].add(id(found))
    assert [len(each) for each in seen.values()] == [1, 1]


def test_actors_that_change_all_the_time_are_not_remembered_without_bound() -> None:
    play, cache = Play(), ActorCache()
    many = [play.process() for _ in range(700)]
    for turn in range(4):
        for proc in many:
            proc.values["comm"] = f"c{turn}"
            play.event("open", proc, path="/a")
        resolver = Resolver(play.batch(), cache)
        for at in range(len(many)):
            resolver.event(at)
        assert len(cache) <= 3 * 512


@pytest.mark.parametrize("forms", [3, 8])
def test_an_actor_that_goes_through_a_few_forms_in_turns_is_one_object_for_each(forms: int) -> None:
    play, cache = Play(), ActorCache()
    first = play.process()
    line = [first]
    for _ in range(3):
        line.append(play.process(line[-1]))
    kept = []
    for turn in range(5 * forms):
        first.values["comm"] = f"c{turn % forms}"
        play.event("open", line[-1], path="/a")
        kept.append(Resolver(play.batch(), cache).event(0).actor)
    assert len({id(actor) for actor in kept}) == forms
    assert len(cache) == len(line) * forms


@pytest.mark.parametrize(("forms", "shared"), [(1, True), (8, True), (9, False), (1000, False)])
def test_below_an_actor_that_changes_all_the_time_each_creator_weighs_what_it_takes(forms: int, shared: bool) -> None:
    engine, play = machine(Limits(), max_partials=2000), Play()
    line = [play.process(comm="x", exe="/x", argv=["x"])]
    for _ in range(15):
        line.append(play.process(line[-1]))
    for turn in range(1000):
        line[0].values["comm"] = f"c{turn % forms}"
        play.event("open", play.process(line[-1]), path="/a")
        engine.feed(play.batch())
    bytes_each = engine.stats()["evidence_bytes"] / engine.stats()["partials"]
    assert (bytes_each < 1024) if shared else (bytes_each > 14 * 1024)


def test_lines_that_nobody_shares_are_not_kept_for_a_thousand_processes_each() -> None:
    play, cache = Play(), ActorCache()
    line = [play.process()]
    for _ in range(60):
        line.append(play.process(line[-1]))
    for turn in range(1500):
        line[0].values["comm"] = f"c{turn}"
        play.event("open", play.process(line[-1]), path="/a")
        Resolver(play.batch(), cache).event(0)
    assert len(cache) < 600  # 512 of forms that the line had at first


def test_who_stops_changing_weighs_less_again() -> None:
    play, cache = Play(), ActorCache()
    one = play.process()

    def seen(proc: Proc) -> Known:
        play.event("open", proc, path="/a")
        return Resolver(play.batch(), cache).sight(0).known

    weights = []
    for turn in range(20):
        one.values["comm"] = f"c{turn:02}"
        weights.append(seen(one).texts)
    assert weights[8:] == [weights[0] + 1024] * 12 and weights[:8] == [weights[0]] * 8
    for turn in range(20, 24):
        for _ in range(1100):
            seen(play.process())
        one.values["comm"] = f"c{turn:02}"
        weights.append(seen(one).texts)
    assert weights[-1] == weights[0]
