"""What the sensor lost before it could be sent on, and the rows that tell of it in the stream."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tracerd.batch import BatchBuilder


class Losses:
    """Compares counts that only grow with those before, and puts a LOST row behind what came before a loss was seen."""

    def __init__(self, builder: BatchBuilder) -> None:
        """builder: of the batch that rows are added to."""
        self.counts = {"ring": 0, "malformed": 0, "skipped": 0}
        self._builder = builder
        self._at_ns = dict.fromkeys(self.counts, time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def note(self, counts: Mapping[str, int]) -> None:
        """Takes what was lost since the start: `ring` had no room, `malformed` couldn't be decoded, `skipped` by the kernel."""
        for where, count in counts.items():
            new = count - self.counts[where]
            if new > 0:
                now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                self._builder.lost(where, new, now, self._at_ns[where])
                self.counts[where], self._at_ns[where] = count, now
