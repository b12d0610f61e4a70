"""Who holds how much: so that what is evicted comes from the user who holds most, never from the others."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Held(Protocol):
    """What is counted. weight must not change while it is held."""

    @property
    def uid(self) -> int: ...

    @property
    def weight(self) -> int: ...


H = TypeVar("H", bound=Held)


class Shares(Generic[H]):
    """Entries by the uid that caused them, the one longest unchanged first, and the uids by weight.

    The heaviest uid is found among the distinct weights, of which there are at most the square root of twice their sum.
    """

    def __init__(self) -> None:
        self.weight = 0
        self.count = 0
        # Ordered, since a plain dict takes ever longer to find its first entry while others leave from the front.
        self._held: dict[int, OrderedDict[H, None]] = {}
        self._weights: dict[int, int] = {}
        self._uids: dict[int, OrderedDict[int, None]] = {}  # weight -> uids of that weight

    def add(self, item: H) -> None:
        """Counts an entry."""
        self._held.setdefault(item.uid, OrderedDict())[item] = None
        self._shift(item.uid, item.weight)
        self.count += 1

    def remove(self, item: H) -> None:
        """Forgets an entry that was added."""
        held = self._held[item.uid]
        del held[item]
        if not held:
            del self._held[item.uid]
        self._shift(item.uid, -item.weight)
        self.count -= 1

    def replace(self, old: H, new: H) -> None:
        """Puts an entry in the stead of another; it counts as the newest."""
        if (old.uid, old.weight) == (new.uid, new.weight):
            held = self._held[old.uid]
            del held[old]
            held[new] = None
        else:
            self.remove(old)
            self.add(new)

    def victim(self) -> H:
        """Returns the heaviest uid's entry that is longest unchanged. There must be an entry."""
        heaviest = next(iter(self._uids[max(self._uids)]))
        return next(iter(self._held[heaviest]))

    def _shift(self, uid: int, change: int) -> None:
        self.weight += change
        old = self._weights.pop(uid, 0)
        if old:
            same = self._uids[old]
            del same[uid]
            if not same:
                del self._uids[old]
        if new := old + change:
            self._weights[uid] = new
            self._uids.setdefault(new, OrderedDict())[uid] = None
