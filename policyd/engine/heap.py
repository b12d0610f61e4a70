"""Deadlines in order, exactly, or by a lower bound where things are put off over and over."""

from __future__ import annotations

import heapq
from typing import Final, Generic, Protocol, TypeVar


class Due(Protocol):
    """What the heap holds; it writes heap_index."""

    deadline_ns: int
    heap_index: int


D = TypeVar("D", bound=Due)


class DeadlineHeap(Generic[D]):
    """A binary heap whose entries know their place, so one that ends early leaves at once.

    Holds exactly the live entries: add, move and remove cost O(log n), the earliest is at hand."""

    def __init__(self) -> None:
        self._items: list[D] = []

    def __len__(self) -> int:
        return len(self._items)

    @property
    def first(self) -> D | None:
        """The entry that is due first; None when empty."""
        return self._items[0] if self._items else None

    def add(self, item: D) -> None:
        """Adds an entry that isn't in the heap."""
        self._items.append(item)
        self._up(len(self._items) - 1, item)

    def remove(self, item: D) -> None:
        """Removes an entry that is in the heap."""
        index = item.heap_index
        last = self._items.pop()
        if last is not item:
            self._settle(index, last)
        item.heap_index = -1

    def replace(self, old: D, new: D) -> None:
        """Puts an entry in the stead of another."""
        index, old.heap_index = old.heap_index, -1
        self._settle(index, new)

    def moved(self, item: D) -> None:
        """Puts an entry whose deadline changed in its new place."""
        self._settle(item.heap_index, item)

    def _settle(self, index: int, item: D) -> None:
        if index and item.deadline_ns < self._items[(index - 1) >> 1].deadline_ns:
            self._up(index, item)
        else:
            self._down(index, item)

    def _up(self, index: int, item: D) -> None:
        items, due = self._items, item.deadline_ns
        while index:
            above = (index - 1) >> 1
            other = items[above]
            if other.deadline_ns <= due:
                break
            items[index] = other
            other.heap_index = index
            index = above
        items[index] = item
        item.heap_index = index

    def _down(self, index: int, item: D) -> None:
        items, due, size = self._items, item.deadline_ns, len(self._items)
        while (below := 2 * index + 1) < size:
            if below + 1 < size and items[below + 1].deadline_ns < items[below].deadline_ns:
                below += 1
            other = items[below]
            if due <= other.deadline_ns:
                break
            items[index] = other
            other.heap_index = index
            index = below
        items[index] = item
        item.heap_index = index


class Later(Protocol):
    """What the agenda holds; it writes agenda_ns."""

    agenda_ns: int

    @property
    def deadline_ns(self) -> int: ...


L = TypeVar("L", bound=Later)

_OUTDATED: Final = 64
_NEVER: Final = 1 << 63
#: agenda_ns of what isn't in the agenda.
NOWHERE: Final = -1
#: A slice of time, as a power of two in ns: about a second.
_SLICE: Final = 30


class Agenda(Generic[L]):
    """For deadlines that are put off much more often than they come: to put one off costs nothing.

    An entry stands at its deadline, or at one that it had before, and is looked at again when that has come. It lies with all
    others of its slice of time, in no order, and most are taken out there again; only when a slice begins are its entries put
    in a heap (R. Brown, Calendar queues, CACM 31, 1988). What is taken out from there leaves an outdated entry behind; of those,
    and of slices that are empty, there are never more than of the others, and 64.
    """

    def __init__(self) -> None:
        self._slices: dict[int, dict[L, None]] = {}
        self._order: list[int] = []  # a heap of their numbers, and of some that were left empty
        self._begun = -1  # the last slice that lies in the heap; all before do, too
        self._near: list[tuple[int, int, L]] = []  # a heap: when to look, a running number, what
        self._pushed = 0
        self._live = 0

    @property
    def first_ns(self) -> int:
        """Not after the earliest deadline; when empty, later than any."""
        if not self._live:
            return _NEVER
        return self._near[0][0] if self._near else self._order[0] << _SLICE

    @property
    def entries(self) -> int:
        """How many entries there are, outdated ones and empty slices among them."""
        return len(self._near) + len(self._order) + sum(map(len, self._slices.values()))

    def add(self, item: L) -> None:
        """Adds what isn't there, or lets what is stand no later than its deadline."""
        deadline_ns = item.deadline_ns
        if item.agenda_ns == NOWHERE:
            self._live += 1
        elif item.agenda_ns <= deadline_ns:
            return
        else:
            self._take_out(item)
        self._push(item, deadline_ns)

    def remove(self, item: L) -> None:
        """Takes out what is there."""
        self._take_out(item)
        item.agenda_ns = NOWHERE
        self._live -= 1
        self._tidy()

    def due(self, now_ns: int) -> L | None:
        """Returns something whose deadline lies before now, if there is any. It stays where it is."""
        if self._order and self._order[0] <= now_ns >> _SLICE:
            self._begin(now_ns >> _SLICE)
        near = self._near
        while near and near[0][0] < now_ns:
            at_ns, _, item = near[0]
            if at_ns == item.agenda_ns and item.deadline_ns < now_ns:
                return item
            heapq.heappop(near)
            if at_ns == item.agenda_ns:
                self._push(item, item.deadline_ns)
        return None

    def _begin(self, number: int) -> None:
        # Puts all slices up to this one in the heap.
        self._begun = number
        while self._order and self._order[0] <= number:
            for item in self._slices.pop(heapq.heappop(self._order), ()):
                self._pushed += 1
                self._near.append((item.agenda_ns, self._pushed, item))
        heapq.heapify(self._near)

    def _push(self, item: L, deadline_ns: int) -> None:
        item.agenda_ns = deadline_ns
        number = deadline_ns >> _SLICE
        if number > self._begun:
            items = self._slices.get(number)
            if items is None:
                items = self._slices[number] = {}
                heapq.heappush(self._order, number)
            items[item] = None
            return
        self._pushed += 1
        heapq.heappush(self._near, (deadline_ns, self._pushed, item))
        self._tidy()

    def _take_out(self, item: L) -> None:
        number = item.agenda_ns >> _SLICE
        if number <= self._begun:
            return  # it stays in the heap, outdated
        items = self._slices[number]
        del items[item]
        if not items:
            del self._slices[number]
            if len(self._order) > 2 * len(self._slices) + _OUTDATED:
                self._order = list(self._slices)
                heapq.heapify(self._order)

    def _tidy(self) -> None:
        if len(self._near) > 2 * self._live + _OUTDATED:
            self._near = [entry for entry in self._near if entry[0] == entry[2].agenda_ns]
            heapq.heapify(self._near)
