"""What begins, what takes whose place, and what has to go: by the policies' modes, the bounds, and the clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from execray.schema.event import Event
from policyd.engine.evidence import WEIGHT_BYTES
from policyd.engine.keys import Key
from policyd.engine.partials import NEVER, Limits, Partial, PolicyRun
from policyd.engine.scopes import Scope
from policyd.engine.starts import Begun, Cohort, Opened, Start
from policyd.engine.table import Opening
from policyd.engine.tally import Counted
from policyd.engine.waiting import Waiting, scope_at

#: Where a bound of at least as many is reached, one part in so many of it goes.
_AT_ONCE: Final = 64


class Store(Waiting):
    """All partials, within their bounds; those of a Start count as what they stand for."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits.exit_grace_ns)
        self._limits = limits
        self.evicted = 0
        self.expired = 0
        self.replaced = 0
        self.retired = 0
        self._max_weight = limits.evidence_bytes // WEIGHT_BYTES
        self._cohorts: dict[Opening, Cohort] = {}

    def expire(self, now_ns: int) -> None:
        """Removes every partial whose deadline lies before now; one due exactly now may still move."""
        while (first := self._heap.first) is not None and first.deadline_ns < now_ns:
            self.remove(first)
            self.expired += 1
        while (start := self._agenda.due(now_ns)) is not None:
            gone = start.overdue(now_ns)
            self.expired += gone.bit_count()
            self._clear(start, gone)
        first = self._heap.first
        self.wake_ns = min(NEVER if first is None else first.deadline_ns, self._agenda.first_ns)

    def add(self, partial: Partial) -> bool:
        """Puts a partial in its place, and keeps the bounds. Returns False where the policy's mode leaves it no place."""
        run = partial.run
        partial.weight = partial.measured
        table = run.table
        scope = scope_at(run.scopes, partial.key)
        start = scope.start_of(run)
        if start is not None and table.plain is not None and partial.state == table.plain.target:
            self.replaced += 1
            self._clear(start, run.member)
            scope = scope_at(run.scopes, partial.key)
        places = scope.places.get(run)
        held = places.get(partial.state) if places is not None else None
        if held is not None and not table.latest and not table.copies:
            self.replaced += 1
            return False
        if held is not None and table.latest:
            # What is awaited here stays as it is.
            (older,) = held
            held[0] = partial
            self._heap.replace(older, partial)
            self.wake_ns = min(self.wake_ns, partial.deadline_ns)
            self._shares.replace(older, partial)
            run.shares.replace(older, partial)
            self.replaced += 1
        else:
            self._put(scope, partial)
            if table.copies:
                self._keep_copies(partial)
        self._keep_bounds(run)
        return True

    def add_repeat(self, partial: Partial, step: int, event: Event, weight: int) -> None:
        """Adds a repeat of a step to a partial's evidence, as far as that is kept."""
        self.settle(partial)
        partial.repeat(step, event, weight, self._limits.evidence_events)
        self._weigh(partial)

    def count(self, partial: Partial, step: int, counted: Counted) -> bool:
        """Counts an event towards a step of a partial; returns whether the step is met now."""
        self.settle(partial)
        reached = partial.count(step, counted, self._limits.evidence_events)
        if self.holds(partial):
            self._heap.moved(partial)
            self.wake_ns = min(self.wake_ns, partial.deadline_ns)
            self._weigh(partial)
        return reached

    def forget_count(self, partial: Partial, step: int) -> None:
        """Lets a partial begin a count anew; one that has nothing else is gone."""
        if partial.is_counting:
            self.remove(partial)
        elif partial.tallies is not None:
            partial.tallies.pop(step, None)
            self._weigh(partial)

    def begin(self, openings: Iterable[Opened], begun: Begun) -> None:
        """Begins, by one event, a sequence for each of some members of cohorts, in the stead of those that wait in that place."""
        weight, owner = begun.weight, begun.owner
        for cohort, members, key in openings:
            scope = cohort.scopes.get(key)
            start = scope.starts.get(cohort) if scope is not None else None
            if start is None or start.members != members or (cohort.further and not _apart(scope, cohort)):
                self._begin_anew(cohort, members, key, begun)
                continue
            # The common case where a first step is met over and over; what is awaited here stays as it is.
            self.replaced += members.bit_count()
            before = start.begun
            start.renew(begun, self.evicted)
            if before.weight != weight or before.owner != owner:
                self._reweigh(start, members)
                self._keep_pool()

    def _begin_anew(self, cohort: Cohort, members: int, key: Key, begun: Begun) -> None:
        scope = scope_at(cohort.scopes, key)
        start = scope.starts.get(cohort)
        if start is not None and start.members & ~members:
            # One that begins apart from the others has left the start by then, or is to stay as it is.
            for run in cohort.runs_of(start.members & ~members):
                self.settle(start.partial(run))
            scope = scope_at(cohort.scopes, key)
            start = scope.starts.get(cohort)
        if start is None:
            start = scope.starts[cohort] = Start(cohort, key, begun)
        if scope.places and cohort.further:
            self._displace(scope, cohort, members)
        older = start.members
        self.replaced += older.bit_count()
        start.renew(begun, self.evicted)
        self._reweigh(start, members)
        self._fill(scope, start, older)
        if cohort.count + cohort.own > cohort.limit:
            self._keep_starts(cohort)
        self._keep_pool()

    def retire(self, gone: Sequence[PolicyRun]) -> int:
        """Removes the partials of policies that have gone. Returns how many."""
        live = self._live
        members: dict[Cohort, int] = {}
        for run in gone:
            for partial in list(run.shares):
                self.remove(partial)
            if run.cohort is not None:
                members[run.cohort] = members.get(run.cohort, 0) | run.member
        for cohort, mask in members.items():
            for start in list(cohort.starts):
                if start.members & mask:
                    self._clear(start, start.members & mask)
            for run in list(cohort.runs_of(mask)):
                cohort.leave(run)
        self.retired += live - self._live
        return live - self._live

    def regroup(self, runs: Sequence[PolicyRun]) -> None:
        """Adapts to the tables of the policies that run now."""
        for run in runs:
            if run.cohort is None and run.table.plain is not None:
                opening = run.table.plain.opening
                cohort = self._cohorts.get(opening)
                if cohort is None:
                    cohort = self._cohorts[opening] = Cohort(opening, self.scopes_of(opening.kind))
                cohort.join(run)
        for opening in [opening for opening, cohort in self._cohorts.items() if not cohort.runs]:
            del self._cohorts[opening]
        for cohort in self._cohorts.values():
            cohort.rebuild()
        self._rebuild_masks()

    def _displace(self, scope: Scope, cohort: Cohort, members: int) -> None:
        # Partials of their own where these members are about to begin anew.
        for run in scope.places.keys() & cohort.further.keys():
            if run.member & members and run.table.plain is not None:
                for partial in list(scope.places.get(run, {}).get(run.table.plain.target, ())):
                    self.replaced += 1
                    self.remove(partial)

    def _weigh(self, partial: Partial) -> None:
        measured = partial.measured
        if measured != partial.weight:
            self._shares.remove(partial)
            partial.run.shares.remove(partial)
            partial.weight = measured
            self._shares.add(partial)
            partial.run.shares.add(partial)
            self._keep_bounds(partial.run)

    def _keep_copies(self, partial: Partial) -> None:
        held = self.at(partial.run, partial.key, partial.state)
        while len(held) > partial.run.table.copies:
            self.remove(held[0])
            self.replaced += 1

    def _keep_bounds(self, run: PolicyRun) -> None:
        while run.count > run.limit:
            self._evict_of(run)
        self._keep_pool()

    def _keep_starts(self, cohort: Cohort) -> None:
        if cohort.count > cohort.limit:
            low = _low(cohort.limit)
            while cohort.count > low:
                for start in cohort.starts.victims(cohort.count - low):
                    self._evict(start)
        if cohort.count + cohort.own > cohort.limit:
            for run in list(cohort.further):
                while run.count > cohort.limit:
                    self._evict_of(run)

    def _keep_pool(self) -> None:
        most, heaviest = self._limits.max_partials, self._max_weight
        if self._live > most or self._shares.weight > heaviest:
            most, heaviest = _low(most), _low(heaviest)
            while self._live > most or self._shares.weight > heaviest:
                for item in self._shares.victims(_AT_ONCE):
                    self._evict(item)
                    if self._live <= most and self._shares.weight <= heaviest:
                        break

    def _evict(self, item: Partial | Start) -> None:
        if isinstance(item, Start):
            self._evict_members(item, item.members)
            return
        self.remove(item)
        self.evicted += 1
        item.run.note_eviction(self.evicted)

    def _evict_members(self, start: Start, members: int) -> None:
        self.evicted += members.bit_count()
        start.cohort.note_eviction(members, self.evicted)
        self._clear(start, members)

    def _evict_of(self, run: PolicyRun) -> None:
        # Of what a policy has more of: sequences that wait behind its first step in starts, or all others.
        cohort = run.cohort
        if cohort is None or run.shares.count >= run.shared:
            self._evict(run.shares.victim())
            return
        start = cohort.starts.victim()
        if not start.members & run.member:
            start = next(start for start in cohort.starts if start.members & run.member)
        self._evict_members(start, run.member)


def _low(limit: int) -> int:
    # To find out who holds most takes longer than to take something from them: so where there is much, some go together.
    return limit - limit // _AT_ONCE


def _apart(scope: Scope | None, cohort: Cohort) -> bool:
    # Whether no member has a partial of its own there.
    return scope is None or scope.places.keys().isdisjoint(cohort.further.keys())
