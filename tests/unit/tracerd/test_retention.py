"""tracerd.stream.Retention: nothing is lost within the bound, and past it the count is exact."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.schema.catalog import ACTOR_SLOTS, LOST
from execray.wire.frames import Batch, Decoder, Row
from tracerd.stream import Retention

ACTOR: Row = (None, (7, 1), *[0] * 13, *[None] * (len(ACTOR_SLOTS) - 14))


def batch(seq: int, rows: int = 3, pad: int = 1000) -> Batch:
    events = tuple((3, 100 + seq, 0, 7, 0, 0, 0) for _ in range(rows))
    return Batch(seq, 1 + seq * rows, (b"x" * pad,), (ACTOR,), events)


def sent(retention: Retention) -> list[Batch]:
    out = []
    while (data := retention.next()) is not None:
        (frame,) = Decoder().feed(data)
        assert isinstance(frame, Batch)
        out.append(frame)
    return out


def test_batches_are_sent_once_and_in_order() -> None:
    kept = Retention(1 << 20)
    for seq in range(3):
        kept.add(batch(seq))
    assert [b.seq for b in sent(kept)] == [0, 1, 2]
    assert sent(kept) == []
    kept.add(batch(3))
    assert [b.seq for b in sent(kept)] == [3]


def test_a_returning_subscriber_gets_what_it_had_not_acknowledged() -> None:
    kept = Retention(1 << 20)
    for seq in range(5):
        kept.add(batch(seq))
    sent(kept)
    kept.acknowledge(1)
    kept.rewind(2)
    assert [b.seq for b in sent(kept)] == [3, 4]
    kept.rewind(-1)
    assert [b.seq for b in sent(kept)] == [3, 4]


def test_what_was_sent_waits_until_it_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tracerd.stream.time.monotonic", lambda: now)
    kept = Retention(1 << 20)
    kept.add(batch(0))
    now = 105.0
    assert kept.waiting_s() == 0  # not sent yet
    sent(kept)
    now = 107.0
    kept.add(batch(1))
    sent(kept)
    assert kept.waiting_s() == 2
    kept.acknowledge(0)
    now = 108.0
    assert kept.waiting_s() == 1
    kept.acknowledge(1)
    assert kept.waiting_s() == 0


def test_batches_that_go_unread_are_counted() -> None:
    kept = Retention(4 * 1300)
    for seq in range(3):
        kept.add(batch(seq))
    assert kept.drops == 0
    for seq in range(3, 10):
        kept.add(batch(seq))
    assert kept.drops == 10 - len(sent(kept)) + 1  # one tells of those that are gone


def test_past_the_bound_the_oldest_go_and_their_count_comes_first() -> None:
    kept = Retention(4 * 1300)
    for seq in range(10):
        kept.add(batch(seq))
    first, *rest = sent(kept)
    assert [b.seq for b in rest] == list(range(first.seq + 1, 10))
    ((code, _, where, count, since),) = first.events
    assert (code, where, count) == (LOST, "stream", 3 * (first.seq + 1))
    assert since == 100
    assert kept.lost == count


def test_losses_inside_dropped_batches_are_not_forgotten() -> None:
    kept = Retention(1000)
    kept.add(Batch(0, 1, (b"y" * 900,), (), ((LOST, 5, "ring", 42, 1), (LOST, 5, "skipped", 2, 1))))
    kept.add(batch(1))
    kept.add(batch(2))
    first = sent(kept)[0]
    assert {row[2]: row[3] for row in first.events} == {"ring": 42, "skipped": 2, "stream": 3}


def test_what_was_acknowledged_is_never_a_gap() -> None:
    kept = Retention(1200)
    kept.add(batch(0))
    assert [b.seq for b in sent(kept)] == [0]
    kept.add(batch(1))  # pushes out 0, which is sent but not acknowledged
    kept.acknowledge(0)
    assert [b.events[0][0] for b in sent(kept)] == [3]


@given(st.lists(st.sampled_from(["add", "ack", "send", "back"]), max_size=60))
def test_every_row_arrives_or_is_counted(steps: list[str]) -> None:
    kept = Retention(5 * 1300)
    added = acked = 0
    arrived: dict[int, int] = {}
    counted: Counter[int] = Counter()

    def take() -> None:
        for got in sent(kept):
            if got.events[0][0] == LOST:
                counted[got.seq] = got.events[0][3]
            else:
                arrived[got.seq] = len(got.events)

    for step in steps:
        if step == "add":
            kept.add(batch(added))
            added += 1
        elif step == "send":
            take()
        elif step == "ack" and arrived:
            acked = max(arrived)
            kept.acknowledge(acked)
        elif step == "back":
            kept.rewind(max(arrived, default=-1))
    kept.rewind(max([*arrived, *counted], default=-1))
    take()
    assert sum(arrived.values()) + sum(counted.values()) >= 3 * added
    missing = [seq for seq in range(added) if seq not in arrived]
    assert 3 * len(missing) <= sum(counted.values())
