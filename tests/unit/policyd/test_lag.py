"""How long matches took to be found, as `status` tells it."""

from __future__ import annotations

from policyd.lag import Lag


def test_each_match_counts_once_in_the_smallest_bound_that_it_kept() -> None:
    lag = Lag()
    for took_us in (0, 1000, 1001, 9_999, 10_000, 10_001, 60_000_000):
        lag.note(5_000_000, 5_000_000 + took_us * 1000)
    assert lag.to_json() == {"1": 2, "10": 3, "100": 1, "1000": 0, "10000": 0, "more": 1, "max": 60_000.0}


def test_an_event_of_a_moment_to_come_took_no_time() -> None:
    lag = Lag()
    lag.note(10, 5)
    assert lag.to_json() == {"1": 1, "10": 0, "100": 0, "1000": 0, "10000": 0, "more": 0, "max": 0.0}
