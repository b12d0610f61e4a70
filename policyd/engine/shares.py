"""Who holds how much: so that what is evicted comes from the user or the group who holds most, never from the others."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

#: The container in which processes are; outside of any, their cgroup.
Group: TypeAlias = int | bytes


class Owner(NamedTuple):
    """Who caused an entry: a user, in a group of processes."""

    uid: int
    group: Group


_FEW: Final = 16
#: Of what one owner holds, the part that goes at once: an eighth.
_PART: Final = 8
#: Owners whose weights changed, before the rankings are told in any case: those of many have ended by then.
_MAX_CHANGED: Final = 1024


class Held:
    """What is counted. Neither owner nor weight may change while it is held.

    number: in the order of all that began; another one than before where it has been renewed. in_pool, in_own: where it stands
    among all, and among those of one policy or cohort.
    """

    __slots__ = ("in_own", "in_pool", "number", "owner", "weight")

    def __init__(self, owner: Owner, number: int) -> None:
        self.owner = owner
        self.number = number
        self.weight = 0
        self.in_pool: _Entry | None = None
        self.in_own: _Entry | None = None


class _Entry:
    """Where something stands in the order of what one owner holds. number: the one that it had when it came to its place.

    A list linked in itself: an ordered dict takes twice the memory and, for what is looked at once in a while, twice the time.
    """

    __slots__ = ("after", "before", "holding", "item", "number")

    def __init__(self, item: Held, holding: _Holding) -> None:
        self.item = item
        self.holding = holding
        self.number = item.number
        self.before: _Entry | None = None
        self.after: _Entry | None = None


class _Holding:
    """What one owner holds. ranked: the weight that the rankings know; where it is another one, `changed` is set."""

    __slots__ = ("changed", "count", "first", "last", "owner", "ranked", "weight")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.first: _Entry | None = None
        self.last: _Entry | None = None
        self.count = 0
        self.weight = 0
        self.ranked = 0
        self.changed = False

    def append(self, entry: _Entry) -> None:
        """Puts an entry that is nowhere at the end."""
        last = self.last
        entry.before, entry.number = last, entry.item.number
        if last is None:
            self.first = entry
        else:
            last.after = entry
        self.last = entry
        self.count += 1

    def take_out(self, entry: _Entry) -> None:
        """Takes an entry out."""
        before, after = entry.before, entry.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        entry.before = entry.after = None
        self.count -= 1

    def oldest(self, most: int) -> list[Held]:
        """Returns a number of the first. There must be one.

        To be renewed costs an entry nothing: those that have been go to the end when they are come upon here.
        """
        entry = self.first
        while entry is not None and entry.item.number != entry.number:
            self.take_out(entry)
            self.append(entry)
            entry = self.first
        found: list[Held] = []
        while entry is not None and most:
            if entry.item.number == entry.number:
                found.append(entry.item)
            entry, most = entry.after, most - 1
        return found


H = TypeVar("H", bound=Held)
J = TypeVar("J", bound=Hashable)
K = TypeVar("K", bound=Hashable)


class Ranking(Generic[K]):
    """Names by weight. To weigh is cheap; of a few, who is heaviest is found by looking at all.

    Of more it is kept track of from the first time that it is asked. A heap then has an upper bound for each name. A weight that
    grows past its bound doubles that, and one that is found below it when the name comes to the top draws it down: so most
    changes leave the heap alone.
    """

    __slots__ = ("_bounds", "_heap", "_pushed", "weights")

    def __init__(self) -> None:
        self.weights: dict[K, int] = {}
        self._bounds: dict[K, int] = {}
        self._heap: list[
            tuple[int, int, K]
        ] = []  # minus the bound, a running number, the name; outdated ones among them
        self._pushed = 0

    @property
    def entries(self) -> int:
        """How many entries the heap has, outdated ones among them."""
        return len(self._heap)

    def shift(self, name: K, change: int) -> None:
        """Changes a name's weight; without any it is not there."""
        weight = self.weights.get(name, 0) + change
        if weight:
            self.weights[name] = weight
        else:
            del self.weights[name]
        if self._heap and weight > self._bounds.get(name, 0):
            self._push(name, 2 * weight)

    def heaviest(self) -> tuple[int, K]:
        """Returns the most that one weighs, and who does. There must be one."""
        heap, bounds = self._heap, self._bounds
        if len(self.weights) <= _FEW:
            if heap:
                heap.clear()
                bounds.clear()
            name = max(self.weights, key=self.weights.__getitem__)
            return self.weights[name], name
        while True:
            if not heap or len(heap) > 2 * len(self.weights) + 16:
                self._rebuild()
            bound, _, name = heap[0]
            weight = self.weights.get(name, 0)
            if weight == -bound == bounds.get(name):
                return weight, name
            heapq.heappop(heap)
            if bounds.get(name) == -bound:
                del bounds[name]
                if weight:
                    self._push(name, weight)

    def _push(self, name: K, bound: int) -> None:
        self._pushed += 1
        self._bounds[name] = bound
        heapq.heappush(self._heap, (-bound, self._pushed, name))

    def _rebuild(self) -> None:
        self._bounds.clear()
        self._heap.clear()
        for name, weight in self.weights.items():
            self._push(name, weight)


class Shares(Generic[H]):
    """Entries by who caused them, those first that have not been renewed for long; and users and groups by weight.

    Both count, since neither alone is fair: the host and every container have a user 0, and a container's root may use as many
    users as it likes, while somebody who may make cgroups may spread over those. Most of the time nobody asks who holds most, so
    the rankings learn of changes only then.
    """

    def __init__(self, pool: bool = False) -> None:
        """pool: whether it is the one of all; an entry is in that one, and in one other."""
        self.weight = 0
        self.count = 0
        self._pool = pool
        self._held: dict[Owner, _Holding] = {}  # those who hold something, and some who did
        self._changed: list[_Holding] = []
        self._uids: Ranking[int] = Ranking()
        self._groups: Ranking[Group] = Ranking()
        self._groups_of: dict[int, Ranking[Group]] = {}
        self._uids_of: dict[Group, Ranking[int]] = {}

    def __iter__(self) -> Iterator[H]:
        for holding in self._held.values():
            entry = holding.first
            while entry is not None:
                yield cast(H, entry.item)
                entry = entry.after

    def add(self, item: H) -> None:
        """Counts an entry."""
        holding = self._held.get(item.owner)
        if holding is None:
            holding = self._held[item.owner] = _Holding(item.owner)
        entry = _Entry(item, holding)
        holding.append(entry)
        if self._pool:
            item.in_pool = entry
        else:
            item.in_own = entry
        self.count += 1
        self._weigh(holding, item.weight)

    def remove(self, item: H) -> None:
        """Forgets an entry that was added."""
        entry = self._entry(item)
        if self._pool:
            item.in_pool = None
        else:
            item.in_own = None
        holding = entry.holding
        holding.take_out(entry)
        self.count -= 1
        self._weigh(holding, -item.weight)

    def replace(self, old: H, new: H) -> None:
        """Puts an entry in the stead of another; it counts as the newest."""
        if old.weight != new.weight or old.owner != new.owner:
            self.remove(old)
            self.add(new)
            return
        entry = self._entry(old)
        if self._pool:
            old.in_pool, new.in_pool = None, entry
        else:
            old.in_own, new.in_own = None, entry
        entry.holding.take_out(entry)
        entry.item = new
        entry.holding.append(entry)

    def reweigh(self, item: H, weight: int) -> None:
        """Takes into account that an entry is about to have another weight; it keeps its place."""
        self._weigh(self._entry(item).holding, weight - item.weight)

    def victim(self) -> H:
        """Returns the oldest entry of who holds most. There must be an entry."""
        return cast(H, self._heaviest().oldest(1)[0])

    def victims(self, most: int) -> list[H]:
        """Returns some such entries of one owner: an eighth of what that one has, or fewer, or a given number; at least one."""
        holding = self._heaviest()
        return cast(list[H], holding.oldest(max(1, min(most, holding.count // _PART))))

    def _entry(self, item: H) -> _Entry:
        entry = item.in_pool if self._pool else item.in_own
        assert entry is not None
        return entry

    def _heaviest(self) -> _Holding:
        # The heaviest user or group; of a user what it holds in its heaviest group, of a group what its heaviest user has there.
        self._rank()
        of_user, uid = self._uids.heaviest()
        of_group, group = self._groups.heaviest()
        if of_user >= of_group:
            _, group = self._groups_of[uid].heaviest()
        else:
            _, uid = self._uids_of[group].heaviest()
        return self._held[Owner(uid, group)]

    def _weigh(self, holding: _Holding, change: int) -> None:
        holding.weight += change
        self.weight += change
        if not holding.changed:
            holding.changed = True
            self._changed.append(holding)
            if len(self._changed) > _MAX_CHANGED:
                self._rank()

    def _rank(self) -> None:
        for holding in self._changed:
            holding.changed = False
            uid, group = holding.owner
            if change := holding.weight - holding.ranked:
                holding.ranked = holding.weight
                self._uids.shift(uid, change)
                self._groups.shift(group, change)
                _shift_within(self._groups_of, uid, group, change)
                _shift_within(self._uids_of, group, uid, change)
            if not holding.count:
                del self._held[holding.owner]
        self._changed.clear()


def _shift_within(rankings: dict[J, Ranking[K]], whole: J, part: K, change: int) -> None:
    ranking = rankings.get(whole)
    if ranking is None:
        ranking = rankings[whole] = Ranking()
    ranking.shift(part, change)
    if not ranking.weights:
        del rankings[whole]
