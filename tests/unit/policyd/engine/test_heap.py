"""What is due is found when it is due, however often it was put off, and what is taken out leaves little behind."""

from __future__ import annotations

import random

import pytest

from policyd.engine.heap import NOWHERE, Agenda

SECOND = 1_000_000_000


class Thing:
    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self.agenda_ns = NOWHERE


def overdue(agenda: Agenda[Thing], now_ns: int) -> set[Thing]:
    found = set()
    while (thing := agenda.due(now_ns)) is not None:
        agenda.remove(thing)
        found.add(thing)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread_ns", [SECOND // 50, 20 * SECOND, 4_000 * SECOND])
def test_exactly_what_lies_before_now_is_due(seed: int, spread_ns: int) -> None:
    rng = random.Random(seed)
    agenda: Agenda[Thing] = Agenda()
    live: set[Thing] = set()
    now = 0
    for _ in range(3_000):
        match rng.randrange(4):
            case 0:
                thing = Thing(now + rng.randrange(spread_ns))
                agenda.add(thing)
                live.add(thing)
            case 1 if live:
                rng.choice(list(live)).deadline_ns += rng.randrange(spread_ns)  # put off: nobody is told
            case 2 if live:
                thing = rng.choice(list(live))
                thing.deadline_ns = min(thing.deadline_ns, now + rng.randrange(spread_ns))
                agenda.add(thing)
                if rng.random() < 0.5:
                    agenda.remove(thing)
                    live.remove(thing)
            case _:
                now += rng.randrange(spread_ns // 8)
                before = {thing for thing in live if thing.deadline_ns < now}
                if before:
                    assert agenda.first_ns <= min(thing.deadline_ns for thing in before)
                assert overdue(agenda, now) == before
                live -= before
    assert overdue(agenda, 1 << 70) == live
    assert agenda.first_ns == 1 << 63


@pytest.mark.parametrize("ahead_ns", [0, 5 * SECOND, 86_400 * SECOND])
def test_what_comes_and_goes_leaves_little_behind(ahead_ns: int) -> None:
    agenda: Agenda[Thing] = Agenda()
    stays = [Thing(ahead_ns + number * SECOND) for number in range(10)]
    for thing in stays:
        agenda.add(thing)
    agenda.due(SECOND // 2)  # the first slice has begun
    for number in range(2_000):
        thing = Thing(ahead_ns + number * SECOND)
        agenda.add(thing)
        agenda.remove(thing)
    assert agenda.entries <= 3 * (len(stays) + 64)
    assert overdue(agenda, 1 << 70) == set(stays)


def test_a_slice_that_has_begun_leaves_nothing_behind_when_all_of_it_goes() -> None:
    agenda: Agenda[Thing] = Agenda()
    things = [Thing(SECOND + number) for number in range(1_000)]
    for thing in things:
        agenda.add(thing)
    assert agenda.due(SECOND) is None
    for thing in things:
        agenda.remove(thing)
    assert agenda.entries <= 65
