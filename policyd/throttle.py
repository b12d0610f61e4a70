"""How many alerts are too many: pure counting, on the events' own clock. Nothing suppressed goes uncounted."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_KEYS: Final = 16_384
LOSS_WINDOW_NS: Final = 10_000_000_000


@dataclass(slots=True)
class _Entry:
    times: deque[int] = field(default_factory=deque)
    suppressed: int = 0


class Throttle:
    """Lets through at most N in any DUR for each key; the next one let through carries the count of those held back."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        """max_keys: the key that has been quiet longest is forgotten past it."""
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._max_keys = max_keys
        self.suppressed = 0  # all since start
        self.reported = 0  # of those, the ones that a later alert carried

    def admit(self, key: Hashable, limit: int, per_ns: int, time_ns: int) -> int | None:
        """Returns how many were held back since the last one let through, or None: hold this one back too.

        limit: at most that many in any per_ns; a clock that goes back counts as standing still.
        """
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_keys:
            self._entries.popitem(last=False)
        times = entry.times
        now_ns = max(time_ns, times[-1]) if times else time_ns
        while times and now_ns - times[0] >= per_ns:
            times.popleft()
        if len(times) >= limit:
            entry.suppressed += 1
            self.suppressed += 1
            return None
        times.append(now_ns)
        held, entry.suppressed = entry.suppressed, 0
        self.reported += held
        return held


@dataclass(slots=True)
class LossSum:
    """What was lost at one place, over a span."""

    where: str
    count: int
    since_ns: int
    time_ns: int
    id: str  # of the first loss in it
    records: int = 1  # losses summed up here


class LossSummary:
    """Sums up losses: the first at each place is told at once, the others at most once in a window, none left out."""

    def __init__(self, window_ns: int = LOSS_WINDOW_NS) -> None:
        self._window_ns = window_ns
        self._open: dict[str, tuple[int, LossSum | None]] = {}  # where -> (last told, what came since)
        self.total: dict[str, int] = {}

    def add(self, where: str, count: int, since_ns: int, time_ns: int, loss_id: str) -> LossSum | None:
        """Takes one loss in; returns it when it is to be told now."""
        self.total[where] = self.total.get(where, 0) + count
        found = self._open.get(where)
        if found is None:
            self._open[where] = (time_ns, None)
            return LossSum(where, count, since_ns, time_ns, loss_id)
        told_ns, waiting = found
        if waiting is None:
            waiting = LossSum(where, count, since_ns, time_ns, loss_id)
        else:
            waiting.count += count
            waiting.time_ns = max(waiting.time_ns, time_ns)
            waiting.records += 1
        self._open[where] = (told_ns, waiting)
        return next(self.due(time_ns, where), None)

    def due(self, now_ns: int, only: str | None = None) -> Iterator[LossSum]:
        """Yields the sums whose window has ended, and forgets places that have been quiet for one."""
        for where in [only] if only is not None else list(self._open):
            told_ns, waiting = self._open[where]
            if now_ns - told_ns < self._window_ns:
                continue
            if waiting is None:
                del self._open[where]
            else:
                self._open[where] = (now_ns, None)
                yield waiting

    def rest(self) -> Iterator[LossSum]:
        """Yields all that has not been told, before the end."""
        for where, (told_ns, waiting) in self._open.items():
            self._open[where] = (told_ns, None)
            if waiting is not None:
                yield waiting
