"""Every alert and every loss is told or counted, whatever the order in which they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policyd.throttle import LossSummary, Throttle

SECOND = 1_000_000_000


def test_the_first_passes_and_the_next_within_the_window_is_held_back() -> None:
    throttle = Throttle()
    assert throttle.admit("a", 1, 60 * SECOND, 0) == 0
    assert throttle.admit("a", 1, 60 * SECOND, 59 * SECOND) is None
    assert throttle.admit("b", 1, 60 * SECOND, 59 * SECOND) == 0


def test_the_next_let_through_carries_the_count() -> None:
    throttle = Throttle()
    throttle.admit("a", 1, 60 * SECOND, 0)
    for second in range(1, 6):
        assert throttle.admit("a", 1, 60 * SECOND, second * SECOND) is None
    assert throttle.admit("a", 1, 60 * SECOND, 60 * SECOND) == 5
    assert throttle.admit("a", 1, 60 * SECOND, 120 * SECOND) == 0


def test_a_limit_of_three_holds_in_any_window_not_only_in_aligned_ones() -> None:
    throttle = Throttle()
    passed = [t for t in range(0, 100, 5) if throttle.admit("a", 3, 30, t) is not None]
    assert all(sum(start <= t < start + 30 for t in passed) <= 3 for start in range(100))
    assert passed[:4] == [0, 5, 10, 30]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=200),
    st.integers(1, 3),
    st.integers(1, 30),
)
def test_told_and_held_back_add_up_exactly(steps: list[tuple[str, int]], limit: int, per: int) -> None:
    throttle, clock = Throttle(), 0
    admitted, told = 0, 0
    for key, delay in steps:
        clock += delay
        held = throttle.admit(key, limit, per, clock)
        if held is not None:
            admitted += 1
            told += held
    assert admitted + throttle.suppressed == len(steps)
    assert told == throttle.reported <= throttle.suppressed


def test_memory_is_bounded_and_the_total_survives_forgetting() -> None:
    throttle = Throttle(max_keys=10)
    for key in range(100):
        throttle.admit(key, 1, SECOND, key)
        throttle.admit(key, 1, SECOND, key)
    assert throttle.suppressed == 100
    assert throttle.admit(0, 1, SECOND, 100) == 0  # forgotten, so it counts as new
    assert throttle.admit(99, 1, SECOND, 100) is None  # still remembered


def test_the_first_loss_is_told_at_once_and_the_others_once_a_window() -> None:
    losses = LossSummary(window_ns=10)
    first = losses.add("ring", 5, 0, 100, "l1")
    assert first is not None and (first.count, first.id) == (5, "l1")
    assert losses.add("ring", 2, 101, 102, "l2") is None
    assert losses.add("ring", 3, 102, 105, "l3") is None
    assert list(losses.due(109)) == []
    (second,) = losses.due(110)
    assert (second.count, second.since_ns, second.time_ns, second.id, second.records) == (5, 101, 105, "l2", 2)


def test_a_place_that_was_quiet_for_a_window_tells_the_next_loss_at_once() -> None:
    losses = LossSummary(window_ns=10)
    losses.add("ring", 1, 0, 0, "l1")
    assert list(losses.due(10)) == []
    again = losses.add("ring", 2, 15, 15, "l2")
    assert again is not None and again.count == 2


@given(st.lists(st.tuples(st.sampled_from(["ring", "stream"]), st.integers(0, 9), st.integers(0, 8)), max_size=100))
def test_the_counts_told_add_up_to_the_counts_lost(steps: list[tuple[str, int, int]]) -> None:
    losses, clock = LossSummary(window_ns=10), 0
    told: list[tuple[str, int]] = []
    for where, count, delay in steps:
        clock += delay
        told += [(s.where, s.count) for s in losses.due(clock)]
        if (now := losses.add(where, count, clock, clock, f"l{clock}")) is not None:
            told.append((now.where, now.count))
    told += [(s.where, s.count) for s in losses.rest()]
    for where in ("ring", "stream"):
        lost = sum(count for w, count, _ in steps if w == where)
        assert sum(count for w, count in told if w == where) == lost == losses.total.get(where, 0)
