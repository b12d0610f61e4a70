"""How long after its last event a match was found: between the two are the ring, the stream, and all who want a processor."""

from __future__ import annotations

from typing import Final

BOUNDS_MS: Final = (1, 10, 100, 1000, 10_000)


class Lag:
    """Counts matches by that time."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(BOUNDS_MS, 0)
        self._later = 0
        self._max_ns = 0

    def note(self, event_ns: int, now_ns: int) -> None:
        """Counts one match, by the time of its last event and of now (CLOCK_BOOTTIME)."""
        took_ns = max(0, now_ns - event_ns)
        self._max_ns = max(self._max_ns, took_ns)
        for bound_ms in BOUNDS_MS:
            if took_ns <= bound_ms * 1_000_000:
                self._counts[bound_ms] += 1
                return
        self._later += 1

    def to_json(self) -> dict[str, float]:
        """Returns how many took at most so many ms, and more than the bound before; how many more; and the longest, in ms."""
        counts = {str(bound): count for bound, count in self._counts.items()}
        return {**counts, "more": self._later, "max": round(self._max_ns / 1e6, 3)}
