"""Where partials wait: by key and place, within the bounds, and until their deadlines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from execray.schema.event import Event, ProcessId
from policyd.engine.evidence import WEIGHT_BYTES
from policyd.engine.heap import DeadlineHeap
from policyd.engine.keys import Key
from policyd.engine.partials import NEVER, Limits, Partial, PolicyRun
from policyd.engine.shares import Shares
from policyd.engine.tally import Counted
from policyd.program import KeyKind, Overlap


class Scope:
    """What waits under one key: the awaited bits of all policies, and their partials by place, the first to come first."""

    __slots__ = ("mask", "places")

    def __init__(self) -> None:
        self.mask = 0
        self.places: dict[PolicyRun, dict[int, list[Partial]]] = {}

    def refresh(self, run: PolicyRun) -> None:
        """Recomputes the bits of one policy after its partials here changed."""
        table = run.table
        mask = self.mask & ~table.bits
        for state in self.places.get(run, ()):
            mask |= table.awaits[state]
        self.mask = mask


class Store:
    """All partials, within their bounds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.scopes: dict[KeyKind, dict[Key, Scope]] = {kind: {} for kind in KeyKind}
        self.evicted = 0
        self.expired = 0
        self.replaced = 0
        self.retired = 0
        self._heap: DeadlineHeap[Partial] = DeadlineHeap()
        self._shares: Shares[Partial] = Shares()
        self._max_weight = limits.evidence_bytes // WEIGHT_BYTES

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Partial]:
        for scopes in self.scopes.values():
            for scope in scopes.values():
                for places in scope.places.values():
                    for held in places.values():
                        yield from held

    @property
    def wake_ns(self) -> int:
        """The earliest deadline: past it, expire has something to do."""
        first = self._heap.first
        return NEVER if first is None else first.deadline_ns

    @property
    def evidence_bytes(self) -> int:
        """The text kept as evidence, as the bound counts it."""
        return self._shares.weight * WEIGHT_BYTES

    def expire(self, now_ns: int) -> None:
        """Removes every partial whose deadline lies before now; one due exactly now may still move."""
        while (first := self._heap.first) is not None and first.deadline_ns < now_ns:
            self.remove(first)
            self.expired += 1

    def add(self, partial: Partial) -> bool:
        """Puts a partial in its place, and keeps the bounds. Returns False where the policy's mode leaves it no place."""
        partial.weight = partial.measured
        scopes = self.scopes[partial.run.table.policy.key]
        scope = scopes.get(partial.key)
        if scope is None:
            scope = scopes[partial.key] = Scope()
        places = scope.places.setdefault(partial.run, {})
        held = places.get(partial.state)
        mode = partial.run.table.policy.mode
        if held is None:
            places[partial.state] = [partial]
            scope.refresh(partial.run)
        elif mode.overlap is Overlap.FIRST:
            self.replaced += 1
            return False
        elif mode.overlap is Overlap.LATEST:
            # The common case where a first step is met over and over; what is awaited here stays as it is.
            (older,) = held
            held[0] = partial
            self._heap.replace(older, partial)
            self._shares.replace(older, partial)
            partial.run.shares.replace(older, partial)
            self.replaced += 1
            self._keep_bounds(partial.run)
            return True
        else:
            held.append(partial)
        self._heap.add(partial)
        self._shares.add(partial)
        partial.run.shares.add(partial)
        if mode.overlap is Overlap.ALL:
            self._keep_copies(partial)
        self._keep_bounds(partial.run)
        return True

    def holds(self, partial: Partial) -> bool:
        """Whether it is still in its place."""
        return partial.heap_index >= 0

    def at(self, run: PolicyRun, key: Key, state: int) -> list[Partial]:
        """Returns what waits in one place."""
        scope = self.scopes[run.table.policy.key].get(key)
        return scope.places.get(run, {}).get(state, []) if scope is not None else []

    def remove(self, partial: Partial) -> None:
        """Takes a partial out."""
        scopes = self.scopes[partial.run.table.policy.key]
        scope = scopes[partial.key]
        places = scope.places[partial.run]
        held = places[partial.state]
        held.remove(partial)
        if not held:
            del places[partial.state]
            if not places:
                del scope.places[partial.run]
            if scope.places:
                scope.refresh(partial.run)
            else:
                del scopes[partial.key]
        self._heap.remove(partial)
        self._shares.remove(partial)
        partial.run.shares.remove(partial)

    def add_repeat(self, partial: Partial, step: int, event: Event, weight: int) -> None:
        """Adds a repeat of a step to a partial's evidence, as far as that is kept."""
        partial.repeat(step, event, weight, self._limits.evidence_events)
        self._weigh(partial)

    def count(self, partial: Partial, step: int, counted: Counted) -> bool:
        """Counts an event towards a step of a partial; returns whether the step is met now."""
        reached = partial.count(step, counted, self._limits.evidence_events)
        if self.holds(partial):
            self._heap.moved(partial)
            self._weigh(partial)
        return reached

    def forget_count(self, partial: Partial, step: int) -> None:
        """Lets a partial begin a count anew; one that has nothing else is gone."""
        if partial.is_counting:
            self.remove(partial)
        elif partial.tallies is not None:
            partial.tallies.pop(step, None)
            self._weigh(partial)

    def end_process(self, process: ProcessId, now_ns: int) -> None:
        """Lets the partials of a process that ended wait for the grace only. Those of other keys live on."""
        scope = self.scopes[KeyKind.PROCESS].get(process)
        for places in scope.places.values() if scope else ():
            for held in places.values():
                for partial in held:
                    partial.exit_ns = min(partial.exit_ns, now_ns + self._limits.exit_grace_ns)
                    if partial.exit_ns < partial.deadline_ns:
                        partial.deadline_ns = partial.exit_ns
                        self._heap.moved(partial)

    def retire(self, keep: Callable[[PolicyRun], bool]) -> int:
        """Removes the partials of policies that aren't kept. Returns how many."""
        gone = [partial for partial in self if not keep(partial.run)]
        for partial in gone:
            self.remove(partial)
        self.retired += len(gone)
        return len(gone)

    def rebuild_masks(self) -> None:
        """Recomputes every scope's bits, after the policies' bits have changed."""
        for scopes in self.scopes.values():
            for scope in scopes.values():
                scope.mask = 0
                for run in scope.places:
                    scope.refresh(run)

    def _weigh(self, partial: Partial) -> None:
        measured = partial.measured
        if measured != partial.weight:
            for shares in (self._shares, partial.run.shares):
                shares.remove(partial)
            partial.weight = measured
            for shares in (self._shares, partial.run.shares):
                shares.add(partial)
            self._keep_bounds(partial.run)

    def _keep_copies(self, partial: Partial) -> None:
        held = self.at(partial.run, partial.key, partial.state)
        while len(held) > partial.run.table.policy.mode.copies:
            self.remove(held[0])
            self.replaced += 1

    def _keep_bounds(self, run: PolicyRun) -> None:
        while run.shares.count > run.table.policy.max_partials:
            self._evict(run.shares.victim())
        while self._shares.count > self._limits.max_partials or self._shares.weight > self._max_weight:
            self._evict(self._shares.victim())

    def _evict(self, partial: Partial) -> None:
        self.remove(partial)
        partial.run.evicted += 1
        self.evicted += 1
