"""The collector runs when nothing waits, and only then; and what it is spared is none of its business."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from execray.memory import Collector

HOUR_S = 3_600


class Knot:
    """Something that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def collector() -> Iterator[Collector]:
    thresholds = gc.get_threshold()
    one = Collector()
    one.start()
    yield one
    one.stop()
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.collect()


def knot() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


def test_a_cycle_is_freed_within_a_second_where_little_comes(collector: Collector) -> None:
    tied = knot()
    assert tied() is not None
    assert collector.look(999) > 0
    assert tied() is None


def test_nothing_is_looked_at_while_much_comes(collector: Collector) -> None:
    tied = knot()
    assert collector.look(1_000) == 0
    assert tied() is not None


def test_what_was_passed_over_is_freed_within_an_hour_in_a_second_without_events(collector: Collector) -> None:
    tied = knot()
    for _ in range(HOUR_S - 1):
        collector.look(1_000)
    assert collector.look(1) == 0
    assert tied() is not None
    assert collector.look(0) > 0
    assert tied() is None


def test_where_something_always_comes_all_is_looked_at_once_a_day(collector: Collector) -> None:
    tied = knot()
    for _ in range(24 * HOUR_S - 1):
        assert collector.look(50_000) == 0
    assert collector.look(50_000) > 0
    assert tied() is None


def test_a_process_that_has_grown_is_looked_at_whatever_comes(collector: Collector) -> None:
    tied = knot()
    assert collector.look(50_000) == 0
    block = bytearray(70 << 20)
    block[::4096] = bytes(len(block[::4096]))  # each page is really there
    assert collector.look(50_000) > 0
    assert tied() is None
    later = knot()
    assert collector.look(50_000) == 0  # no growth since
    assert later() is not None


def test_python_collects_by_itself_before_and_afterwards() -> None:
    one = Collector()
    assert gc.isenabled()
    one.start()
    assert not gc.isenabled()
    one.stop()
    assert gc.isenabled()
    gc.unfreeze()
