"""Policies that begin alike share what they begin, and behave as if each were alone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from execray.schema.catalog import Flag
from policyd.engine.machine import Machine
from policyd.engine.outputs import Finding, Match, Output
from policyd.engine.partials import Limits
from policyd.program import CompiledPolicy, KeyKind, Mode, Op, Overlap, Until
from tests.support.playbook import Play, Proc
from tests.support.programs import chain, eq, keyed, policy, step, test, times
from tests.support.stories import A, B, C, Story, machine, matches

D = step("open", eq("path", "/d"))
_ADDED = ("started", "advanced", "completed", "cancelled", "replaced", "expired", "partials", "evidence_bytes")


def alike() -> list[CompiledPolicy]:
    """Returns policies of all kinds that begin with the same step, some of which can't share it."""
    same = step("open", eq("path", "/b"), test("uid", Op.EQ, "$a:uid"))
    found = [
        policy("ab", A, B),
        policy("abc", A, B, C, within_s=3),
        policy("ad", A, D, within_s=0.05),
        policy("reference", A, same, C),
        policy("count", A, times(B, 2), C),
        policy("repeats", A, B, C, states=chain(3, {1: (1,)})),
        policy("again", A, B, C, states=chain(3, {1: (0,)})),
        policy("until", A, B, D, states=chain(2), untils=(Until(2, (1,)),)),
        policy("step window", A, step("open", eq("path", "/b"), within_ns=20_000_000)),
        policy("first", A, B, mode=Mode(Overlap.FIRST)),
        policy("all", A, B, mode=Mode(Overlap.ALL, 3)),
        policy("single", A, within_s=None),
        policy("tree", A, B, C, key=KeyKind.TREE),
        policy("by path", *keyed("exe", A, B, C), key=KeyKind.FIELDS),
        policy("by path too", *keyed("exe", A, D), key=KeyKind.FIELDS, within_s=1),
        policy("by two", *keyed("exe, uid > exe, euid", A, B), key=KeyKind.FIELDS),
    ]
    return [*found, *(policy(f"{one.name} 2", *one.steps, key=one.key, states=one.states) for one in found[:4])]


def stream(rng: Random) -> Play:
    play = Play()
    procs = [play.process(exe=f"/bin/{number % 2}", uid=number % 3) for number in range(3)]
    for _ in range(rng.randint(5, 60)):
        proc = rng.choice(procs)
        match rng.randrange(12):
            case 0:
                procs.append(play.fork(proc))
            case 1 if len(procs) > 2:
                play.exit(procs.pop(procs.index(proc)))
            case 2:
                play.lost()
            case _:
                at = (play.now_ns - 10**12) / 1e9 + rng.choice((0, 0.001, 0.02, 0.05, 1, 2.1))
                play.event("open", proc, path=f"/{rng.choice('aaabcd')}", at=at)
    return play


def told(engine: Machine, play: Play, size: int) -> list[Output]:
    return [output for batch in play.batches(size) for output in engine.feed(batch)]


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_policies_that_begin_alike_find_together_what_each_finds_alone(first: int) -> None:
    for number in range(first, first + 50):
        rng = Random(f"alike:{number}")
        policies = rng.sample(alike(), rng.randint(2, 8))
        play = stream(rng)
        batches = play.batches(rng.randint(1, 80))
        together = machine(*policies)
        found = [output for batch in batches for output in together.feed(batch)]
        sums = dict.fromkeys(_ADDED, 0)
        for one in policies:
            alone = machine(one)
            wanted = [output for batch in batches for output in alone.feed(batch)]
            mine = [output for output in found if not isinstance(output, Finding) or output.policy is one]
            assert mine == wanted, (number, one.name)
            stats = alone.stats()
            sums = {name: value + stats[name] for name, value in sums.items()}
        stats = together.stats()
        assert {name: stats[name] for name in _ADDED} == sums, number


def test_a_policy_that_comes_or_goes_leaves_those_that_begin_alike_as_they_are() -> None:
    kept, gone, fresh = policy("kept", A, B), policy("gone", A, C), policy("fresh", A, D)
    story = Story()
    engine = machine(gone, kept)
    story.opens("a").told_to(engine)
    report = engine.load([kept, fresh], 2)
    assert (report.partials_kept, report.partials_retired) == (1, 1)
    found = matches(story.opens("b", "c", "d").told_to(engine))
    assert [match.policy for match in found] == [kept]
    assert [m.policy for m in matches(story.opens("a", "d").told_to(engine))] == [fresh]
    assert engine.load([], 3).partials_retired == 1  # kept, begun anew
    assert engine.stats()["partials"] == 0
    assert story.opens("a", "b", "c", "d").told_to(engine) == []


def flood(engine: Machine, play: Play, procs: Sequence[Proc], *paths: str) -> list[Match]:
    for path in paths:
        for proc in procs:
            play.event("open", proc, path=path)
    return matches(engine.feed(play.batch()))


def test_pool_counts_every_sequence_that_is_shared_and_evicts_those_of_one_event_together() -> None:
    engine = machine(*(policy(f"p{number}", A, B) for number in range(3)), limits=Limits(max_partials=10))
    play = Play()
    procs = [play.process() for _ in range(5)]
    flood(engine, play, procs, "/a")
    stats = engine.stats()
    assert (stats["partials"], stats["started"], stats["evicted"]) == (9, 15, 6)
    found = flood(engine, play, procs, "/b")
    assert [match.actor.id for match in found] == [proc.id for proc in procs[2:] for _ in range(3)]
    assert engine.stats()["partials"] == 0


def test_the_bound_of_a_policy_counts_what_it_shares_and_what_has_gone_on() -> None:
    further, other = policy("further", A, B, C, max_partials=10), policy("other", A, D, max_partials=10)
    engine = machine(further, other)
    play = Play()
    old, new = ([play.process() for _ in range(count)] for count in (6, 7))
    flood(engine, play, old, "/a", "/b")
    flood(engine, play, new, "/a")
    # Of `further` six have gone on and seven wait: three of the latter had to go.
    assert engine.stats()["evicted"] == 3 + 3
    assert engine.stats()["partials"] == 10 + 10
    found = flood(engine, play, [*old, *new], "/b", "/c", "/d")
    assert len([match for match in found if match.policy is further]) == 10
    assert [match.actor.id for match in found if match.policy is other] == [p.id for p in (*old, *new)[3:]]


def test_only_whose_sequences_were_evicted_is_degraded() -> None:
    # Both begin alike, but only one has gone on in the process whose start is evicted.
    gone_on, waits = policy("gone on", A, B, max_partials=2), policy("waits", A, C, max_partials=2)
    engine = machine(gone_on, waits)
    play = Play()
    first, second, third = (play.process() for _ in range(3))
    flood(engine, play, [first], "/a", "/b")
    flood(engine, play, [second, third], "/a")
    assert engine.stats()["evicted"] == 1
    found = flood(engine, play, [second, third], "/b", "/c")
    assert {(match.policy.name, match.degraded) for match in found} == {("gone on", False), ("waits", True)}


def test_what_many_policies_wait_for_after_one_start_expires_at_the_time_of_each() -> None:
    engine = machine(policy("short", A, B, within_s=1), policy("long", A, B, within_s=3))
    story = Story()
    story.opens("a@0").told_to(engine)
    engine.advance_clock(story.play.now_ns + 2_000_000_000)
    assert (engine.stats()["partials"], engine.stats()["expired"]) == (1, 1)
    assert [m.policy.name for m in matches(story.opens("b@2.9").told_to(engine))] == ["long"]


def test_shared_starts_of_a_process_that_ended_live_for_the_grace_only() -> None:
    limits = Limits(exit_grace_ns=2_000_000_000)
    engine = machine(policy("p", A, B), policy("q", A, B), policy("t", A, B, key=KeyKind.TREE), limits=limits)
    story = Story()
    story.opens("a")
    story.play.exit(story.proc)
    story.told_to(engine)
    engine.advance_clock(story.play.now_ns + 2_100_000_000)
    assert (engine.stats()["partials"], engine.stats()["expired"]) == (1, 2)


def test_one_that_an_until_leaves_in_doubt_goes_on_by_the_same_event() -> None:
    unsure = step("open", test("path", Op.STARTSWITH, ("/b",)))
    engine = machine(policy("p", A, B, unsure, states=chain(2), untils=(Until(2, (1,)),)))
    story = Story()
    story.opens("a")
    story.play.event("open", story.proc, path="/b", cut=Flag.PATH_TRUNCATED)
    found = matches(story.told_to(engine))
    assert [match.partial_evidence for match in found] == [True]
