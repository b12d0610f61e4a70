"""Partials: sequences begun and not yet complete, by the process or tree in which they wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from execray.schema.event import Event, ProcessId
from policyd.engine.evidence import weight_of
from policyd.engine.heap import DeadlineHeap
from policyd.engine.shares import Shares
from policyd.engine.table import PolicyTable
from policyd.program import KeyKind

#: A deadline that never comes.
NEVER: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for all policies together."""

    max_partials: int = 20_000
    evidence_events: int = 16  # per partial; the events that met its steps are kept past it, the repeats are not
    evidence_bytes: int = 16 << 20  # of text in kept events; an event costs at least 256
    exit_grace_ns: int = 2_000_000_000  # how long a process's partials outlive it
    row_entries: int = 65_536  # values remembered per slot


@dataclass(slots=True)
class Trace:
    """The evidence for one step of a partial: what met it, and what repeated it."""

    step: int
    events: list[Event]
    count: int
    met: bool  # False: so far only repeats


class PolicyRun:
    """One loaded policy's running state. It outlives a reload that doesn't change the policy; its table doesn't."""

    def __init__(self, table: PolicyTable) -> None:
        self.table = table
        self.shares: Shares[Partial] = Shares()
        self.evicted = 0


class Partial:
    """One run of a policy under one key. Times are the engine's clock, not the events' own."""

    __slots__ = (
        "begun",
        "deadline_ns",
        "doubtful",
        "evicted_before",
        "exit_ns",
        "heap_index",
        "key",
        "last_ns",
        "losses_before",
        "run",
        "started_ns",
        "state",
        "trail",
        "uid",
        "weight",
    )

    def __init__(self, run: PolicyRun, key: ProcessId, uid: int, now_ns: int, begun: int, losses: int) -> None:
        self.run = run
        self.key = key
        self.uid = uid
        self.state = 0
        self.started_ns = now_ns
        self.last_ns = now_ns
        self.begun = begun
        self.exit_ns = NEVER
        self.deadline_ns = NEVER
        self.heap_index = -1
        self.weight = 1
        self.trail: list[Trace] = []
        self.losses_before = losses
        self.evicted_before = run.evicted
        self.doubtful = False

    @property
    def bindings(self) -> dict[str, Event]:
        """The events that met the steps so far, by alias; of a step only repeated, the first."""
        steps = self.run.table.policy.steps
        return {alias: t.events[0] for t in self.trail if (alias := steps[t.step].alias) is not None and t.events}

    def meet(self, step: int, state: int, event: Event, weight: int, now_ns: int) -> None:
        """Moves to a state by an event that met a step, and sets the deadline of waiting there.

        weight: weight_of(event).
        """
        self.state = state
        self.last_ns = now_ns
        self.trail.append(Trace(step, [event], 1, True))
        self.weight += weight
        self.set_deadline()

    def repeat(self, step: int, event: Event, limit: int) -> bool:
        """Adds a repeat of a step to the evidence. Returns whether the event is kept; else it is only counted."""
        trace = next((t for t in reversed(self.trail) if t.step == step), None)
        if trace is None:
            trace = Trace(step, [], 0, False)
            self.trail.append(trace)
        trace.count += 1
        if sum(len(t.events) for t in self.trail) >= limit:
            return False
        trace.events.append(event)
        return True

    def set_deadline(self) -> None:
        """Recomputes the last instant at which an event may still move this partial."""
        table = self.run.table
        deadline = self.exit_ns
        if table.policy.within_ns is not None:
            deadline = min(deadline, self.started_ns + table.policy.within_ns)
        step_ns = table.step_windows[self.state]
        if step_ns is not None:
            deadline = min(deadline, self.last_ns + step_ns)
        self.deadline_ns = deadline


class Scope:
    """What waits under one key: the awaited bits of all policies, and their partials by place."""

    __slots__ = ("mask", "places")

    def __init__(self) -> None:
        self.mask = 0
        self.places: dict[PolicyRun, dict[int, Partial]] = {}

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
        self.scopes: dict[KeyKind, dict[ProcessId, Scope]] = {kind: {} for kind in KeyKind}
        self.evicted = 0
        self.expired = 0
        self.replaced = 0
        self.retired = 0
        self._heap: DeadlineHeap[Partial] = DeadlineHeap()
        self._shares: Shares[Partial] = Shares()
        self._max_weight = limits.evidence_bytes // 256

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Partial]:
        for scopes in self.scopes.values():
            for scope in scopes.values():
                for places in scope.places.values():
                    yield from places.values()

    @property
    def wake_ns(self) -> int:
        """The earliest deadline: past it, expire has something to do."""
        first = self._heap.first
        return NEVER if first is None else first.deadline_ns

    @property
    def evidence_bytes(self) -> int:
        """The text kept as evidence, as the bound counts it."""
        return self._shares.weight * 256

    def expire(self, now_ns: int) -> None:
        """Removes every partial whose deadline lies before now; one due exactly now may still move."""
        while (first := self._heap.first) is not None and first.deadline_ns < now_ns:
            self.remove(first)
            self.expired += 1

    def add(self, partial: Partial) -> None:
        """Puts a partial in its place; one that is there already gives way (mode latest). Keeps the bounds."""
        scopes = self.scopes[partial.run.table.policy.key]
        scope = scopes.get(partial.key)
        if scope is None:
            scope = scopes[partial.key] = Scope()
        places = scope.places.setdefault(partial.run, {})
        older = places.get(partial.state)
        places[partial.state] = partial
        if older is not None:
            # The common case where a first step is met over and over; what is awaited here stays as it is.
            self._heap.replace(older, partial)
            self._shares.replace(older, partial)
            partial.run.shares.replace(older, partial)
            self.replaced += 1
        else:
            scope.refresh(partial.run)
            self._heap.add(partial)
            self._shares.add(partial)
            partial.run.shares.add(partial)
        self._keep_bounds(partial.run)

    def remove(self, partial: Partial) -> None:
        """Takes a partial out."""
        scopes = self.scopes[partial.run.table.policy.key]
        scope = scopes[partial.key]
        places = scope.places[partial.run]
        del places[partial.state]
        if not places:
            del scope.places[partial.run]
        if scope.places:
            scope.refresh(partial.run)
        else:
            del scopes[partial.key]
        self._forget(partial)

    def add_repeat(self, partial: Partial, step: int, event: Event) -> None:
        """Adds a repeat of a step to a partial's evidence, as far as that is kept."""
        if partial.repeat(step, event, self._limits.evidence_events):
            for shares in (self._shares, partial.run.shares):
                shares.remove(partial)
            partial.weight += weight_of(event)
            for shares in (self._shares, partial.run.shares):
                shares.add(partial)
            self._keep_bounds(partial.run)

    def end_process(self, process: ProcessId, now_ns: int) -> None:
        """Lets the partials of a process that ended wait for the grace only. Those of trees live on."""
        scope = self.scopes[KeyKind.PROCESS].get(process)
        for places in scope.places.values() if scope else ():
            for partial in places.values():
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

    def _forget(self, partial: Partial) -> None:
        self._heap.remove(partial)
        self._shares.remove(partial)
        partial.run.shares.remove(partial)

    def _keep_bounds(self, run: PolicyRun) -> None:
        while run.shares.count > run.table.policy.max_partials:
            self._evict(run.shares.victim())
        while self._shares.count > self._limits.max_partials or self._shares.weight > self._max_weight:
            self._evict(self._shares.victim())

    def _evict(self, partial: Partial) -> None:
        self.remove(partial)
        partial.run.evicted += 1
        self.evicted += 1
