"""Deadlines in order: a binary heap whose entries know their place, so one that ends early leaves at once."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Due(Protocol):
    """What the heap holds; it writes heap_index."""

    deadline_ns: int
    heap_index: int


D = TypeVar("D", bound=Due)


class DeadlineHeap(Generic[D]):
    """Holds exactly the live entries: add, move and remove cost O(log n), the earliest is at hand."""

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
