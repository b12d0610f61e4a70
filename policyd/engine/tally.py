"""Counting steps: the events, or the distinct values, that lie in a sliding window. Never more of them than the step asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final

from execray.schema.event import Event, Value
from policyd.engine.keys import compact
from policyd.program import Times

_NUMBER_BITS: Final = 40


class Gaps:
    """How many losses and evictions there had been at some moment."""

    __slots__ = ("evicted", "losses")

    def __init__(self, losses: int, evicted: int) -> None:
        self.losses = losses
        self.evicted = evicted


class Counted:
    """An event to be counted.

    value: of the field whose distinct values are counted. doubtful: whether it met the step is not sure.
    """

    __slots__ = ("doubtful", "event", "gaps", "now_ns", "value", "weight")

    def __init__(self, event: Event, weight: int, now_ns: int, value: Value, doubtful: bool, gaps: Gaps) -> None:
        self.event = event
        self.weight = weight
        self.now_ns = now_ns
        self.value = value
        self.doubtful = doubtful
        self.gaps = gaps


class Kept:
    """A counted event that is kept as evidence; of each distinct value the last."""

    __slots__ = ("event", "number", "value", "weight")

    def __init__(self, number: int, event: Event, weight: int, value: Hashable) -> None:
        self.number = number
        self.event = event
        self.weight = weight
        self.value = value


class Window(ABC):
    """What lies in a window, oldest first. Times never decrease; entries are numbered as they come."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns how many lie in it."""

    @abstractmethod
    def oldest(self) -> tuple[int, int]:
        """Returns the time and the number of the first. There must be one."""

    @property
    @abstractmethod
    def doubtful(self) -> bool:
        """Whether for some that lies in it is not sure that it counts."""

    @abstractmethod
    def add(self, now_ns: int, number: int, value: Hashable, doubtful: bool) -> bool:
        """Takes one in; returns whether it is a value that was there."""

    @abstractmethod
    def drop(self) -> None:
        """Forgets the oldest."""


class Moments(Window):
    """The times of the last events, at most a given number, in 8 bytes each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times = array("q")
        self._first = 0  # index of the oldest
        self._last_number = 0
        self._doubtful_number = 0  # of the last one in doubt

    def __len__(self) -> int:
        return len(self._times) - self._first

    def oldest(self) -> tuple[int, int]:
        return self._times[self._first], self._last_number - len(self) + 1

    @property
    def doubtful(self) -> bool:
        return len(self) > 0 and self._doubtful_number >= self.oldest()[1]

    def add(self, now_ns: int, number: int, value: Hashable, doubtful: bool) -> bool:
        self._times.append(now_ns)
        self._last_number = number
        if doubtful:
            self._doubtful_number = number
        if len(self) > self._limit:
            self.drop()
        return False

    def drop(self) -> None:
        self._first += 1
        if self._first > 32 and self._first * 2 > len(self._times):
            del self._times[: self._first]
            self._first = 0


class Values(Window):
    """Distinct values by the time when each was last seen, the longest unseen first, at most a given number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Time, number and doubt of each one's latest event, in one int: half the memory of a tuple.
        self._seen: OrderedDict[Hashable, int] = OrderedDict()
        self._unsure = 0  # how many are in doubt

    def __len__(self) -> int:
        return len(self._seen)

    def oldest(self) -> tuple[int, int]:
        packed = next(iter(self._seen.values())) >> 1
        return packed >> _NUMBER_BITS, packed & ((1 << _NUMBER_BITS) - 1)

    @property
    def doubtful(self) -> bool:
        return self._unsure > 0

    def add(self, now_ns: int, number: int, value: Hashable, doubtful: bool) -> bool:
        before = self._seen.pop(value, None)
        self._unsure += doubtful - (0 if before is None else before & 1)
        self._seen[value] = (now_ns << _NUMBER_BITS | number) << 1 | doubtful
        if len(self._seen) > self._limit:
            self.drop()
        return before is not None

    def drop(self) -> None:
        _, packed = self._seen.popitem(last=False)
        self._unsure -= packed & 1


class Tally:
    """What one partial has counted towards one step.

    kept: the first and the last of the counted events that are in the window, within a bound.
    """

    __slots__ = ("_gaps", "_keep", "_number", "_times", "_window", "_window_ns", "kept", "last_ns", "oldest_ns")

    def __init__(self, times: Times, window_ns: int | None, keep: int) -> None:
        """window_ns: how long an event counts; None: for ever. keep: how many events are kept as evidence, at least 2."""
        self._times = times
        self._window_ns = window_ns
        self._keep = max(2, keep)
        self._number = 0
        self._window: Window = Moments(times.count) if times.distinct is None else Values(times.count)
        self._gaps: deque[tuple[int, Gaps]] = deque()  # where they changed, by the number of the event counted
        self.kept: list[Kept] = []
        self.last_ns = 0
        self.oldest_ns = 0  # the time of the oldest that counts

    def __len__(self) -> int:
        return len(self._window)

    @property
    def reached(self) -> bool:
        """Whether the step is met."""
        return len(self._window) >= self._times.count

    @property
    def doubtful(self) -> bool:
        """Whether some that counts may have met the step on a value that is known in part only."""
        return self._window.doubtful

    @property
    def gaps(self) -> Gaps:
        """The losses and evictions that there had been when the oldest that counts came."""
        return self._gaps[0][1]

    @property
    def weight(self) -> int:
        """What the kept events weigh."""
        weight = 0
        for kept in self.kept:
            weight += kept.weight
        return weight

    def add(self, counted: Counted) -> None:
        """Counts an event."""
        now_ns, value, window = counted.now_ns, compact(counted.value), self._window
        if self._window_ns is not None and self._number and self.oldest_ns < now_ns - self._window_ns:
            while len(window) and window.oldest()[0] < now_ns - self._window_ns:
                window.drop()
        self._number += 1
        again = window.add(now_ns, self._number, value, counted.doubtful)
        self.last_ns = now_ns
        self.oldest_ns, oldest = window.oldest()
        gaps = counted.gaps
        last = self._gaps[-1][1] if self._gaps else None
        if last is None or last.losses != gaps.losses or last.evicted != gaps.evicted:
            self._gaps.append((self._number, gaps))
        while len(self._gaps) > 1 and self._gaps[1][0] <= oldest:
            self._gaps.popleft()
        if self.kept and (again or self.kept[0].number < oldest):
            self.kept = [kept for kept in self.kept if kept.number >= oldest and not (again and kept.value == value)]
        self.kept.append(Kept(self._number, counted.event, counted.weight, value))
        if len(self.kept) > self._keep:
            del self.kept[self._keep // 2]
