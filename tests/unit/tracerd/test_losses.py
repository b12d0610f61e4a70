"""What was lost is told once, where it was seen, and as far as it is new."""

from __future__ import annotations

from execray.schema.catalog import LOST
from tracerd.batch import BatchBuilder
from tracerd.losses import Losses


def test_each_loss_is_told_once_and_since_when() -> None:
    builder = BatchBuilder()
    losses = Losses(builder)
    losses.note({"ring": 0, "malformed": 0})
    assert builder.events == []
    losses.note({"ring": 3, "malformed": 0})
    losses.note({"ring": 3})
    losses.note({"skipped": 2, "ring": 4})
    rows = list(builder.events)
    assert [(code, where, count) for code, _, where, count, _ in rows] == [
        (LOST, "ring", 3),
        (LOST, "skipped", 2),
        (LOST, "ring", 1),
    ]
    first, _, second = rows
    assert second[4] == first[1], "since the loss before was told"
    assert losses.counts == {"ring": 4, "malformed": 0, "skipped": 2}
