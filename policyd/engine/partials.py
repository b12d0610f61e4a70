"""Partials: sequences begun and not yet complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from execray.schema.event import Event
from policyd.engine.evidence import WEIGHT_BYTES, text_bytes
from policyd.engine.keys import Key
from policyd.engine.rows import CACHE_ENTRIES
from policyd.engine.shares import Held, Owner, Shares
from policyd.engine.table import PolicyTable
from policyd.engine.tally import Counted, Tally

if TYPE_CHECKING:
    from policyd.engine.scopes import Scope
    from policyd.engine.starts import Cohort, Start

#: A deadline that never comes.
NEVER: Final = 1 << 63


def key_weight(key: Key) -> int:
    """Returns what a partial weighs before it has any evidence."""
    return 1 + text_bytes(key) // WEIGHT_BYTES


class Limits(NamedTuple):
    """Bounds for all policies together."""

    max_partials: int = 20_000
    evidence_events: int = 16  # per partial; the events that met its steps are kept past it, the repeats are not
    evidence_bytes: int = 16 << 20  # of text in kept events; an event costs at least 256
    exit_grace_ns: int = 2_000_000_000  # how long a process's partials outlive it
    row_entries: int = CACHE_ENTRIES  # values remembered per slot


class Trace:
    """The evidence for one step of a partial: what met it, and what repeated it.

    event: the one that met it, of a count the last; None: so far there are only repeats.
    """

    __slots__ = ("count", "event", "events", "step")

    def __init__(self, step: int, events: tuple[Event, ...], count: int, event: Event | None) -> None:
        self.step = step
        self.events = events
        self.count = count
        self.event = event

    @property
    def bound(self) -> Event | None:
        """What the step's alias means: the event that met it, else its first repeat."""
        return self.event or (self.events[0] if self.events else None)


class PolicyRun:
    """One loaded policy's running state. It outlives a reload that doesn't change the policy; its table doesn't."""

    def __init__(self, table: PolicyTable, scopes: dict[Key, Scope]) -> None:
        """scopes: where its partials wait."""
        self.table = table
        self.scopes = scopes
        self.limit = table.policy.max_partials
        self.shares: Shares[Partial] = Shares()
        #: The policies that begin as this one does, its bit among them, and in how many of their starts that bit is not set.
        self.cohort: Cohort | None = None
        self.member = 0
        self.holes = 0
        self._evicted = 0

    @property
    def shared(self) -> int:
        """How many of its partials are bits in starts."""
        return 0 if self.cohort is None else self.cohort.count - self.holes

    @property
    def count(self) -> int:
        """How many partials it has."""
        return self.shares.count + self.shared

    @property
    def evicted(self) -> int:
        """How many evictions there had been, of any policy, by the last one of this policy's partials."""
        if self.cohort is None:
            return self._evicted
        last = self.cohort.last_eviction(self.member)
        return last if last > self._evicted else self._evicted

    def note_eviction(self, number: int) -> None:
        """Notes that a partial of its own was evicted. number: how many evictions there have been by then."""
        self._evicted = number


class Partial(Held):
    """One run of a policy under one key. Times are the engine's clock, not the events' own.

    evidence: what its key and its trail weigh. weight: what the store counts it for, which is set there.
    """

    __slots__ = (
        "deadline_ns",
        "doubtful",
        "evicted_before",
        "evidence",
        "exit_ns",
        "heap_index",
        "key",
        "last_ns",
        "losses_before",
        "run",
        "source",
        "started_ns",
        "state",
        "tallies",
        "trail",
    )

    def __init__(self, run: PolicyRun, key: Key, owner: Owner, now_ns: int, begun: int, losses: int) -> None:
        super().__init__(owner, begun)
        self.run = run
        self.key = key
        self.state = 0
        self.started_ns = now_ns
        self.last_ns = now_ns
        self.exit_ns = NEVER
        self.deadline_ns = NEVER
        self.heap_index = -1
        self.evidence = key_weight(key)
        self.trail: list[Trace] = []
        self.tallies: dict[int, Tally] | None = None
        self.losses_before = losses
        self.evicted_before = run.evicted
        self.doubtful = False
        self.source: Start | None = None  # which it is one of, while it has no place of its own

    @property
    def bindings(self) -> dict[str, Event]:
        """The events that met the steps so far, by alias; of a step only repeated, the first."""
        aliases, found = self.run.table.aliases, {}
        for trace in self.trail:
            alias, bound = aliases[trace.step], trace.bound
            if alias is not None and bound is not None:
                found[alias] = bound
        return found

    @property
    def measured(self) -> int:
        """What it weighs, with what it has counted and not yet used."""
        weight = self.evidence
        if self.tallies is not None:
            for tally in self.tallies.values():
                weight += tally.weight
        return weight

    @property
    def is_counting(self) -> bool:
        """Whether it waits for its first step, a count, to be met."""
        return self.state >= self.run.table.places

    def copy(self) -> Partial:
        """Returns another one, with the same evidence and in no place. Its tallies are this one's own, to be read only."""
        twin = Partial(self.run, self.key, self.owner, self.started_ns, self.number, self.losses_before)
        twin.state, twin.last_ns, twin.exit_ns, twin.evidence = self.state, self.last_ns, self.exit_ns, self.evidence
        twin.trail, twin.tallies = list(self.trail), self.tallies
        twin.evicted_before, twin.doubtful = self.evicted_before, self.doubtful
        return twin

    def meet(self, step: int, state: int, event: Event, weight: int, now_ns: int) -> None:
        """Moves to a state by an event that met a step, and sets the deadline of waiting there.

        weight: weight_of(event); of a count, count() has taken it in.
        """
        tally = None if self.tallies is None else self.tallies.get(step)
        self.tallies = None
        if tally is None:
            self.trail.append(Trace(step, (event,), 1, event))
            self.evidence += weight
        else:
            self.trail.append(Trace(step, tuple(kept.event for kept in tally.kept), len(tally), event))
            self.evidence += tally.weight
            self.doubtful |= tally.doubtful
        self.state = state
        self.last_ns = now_ns
        self.set_deadline()

    def count(self, step: int, counted: Counted, keep: int) -> bool:
        """Counts an event towards a step; returns whether that is met now. keep: the bound of kept events."""
        table = self.run.table
        if self.tallies is None:
            self.tallies = {}
        tally = self.tallies.get(step)
        if tally is None:
            times = table.policy.steps[step].times
            assert times is not None
            room = keep - sum(len(trace.events) for trace in self.trail)
            tally = self.tallies[step] = Tally(times, table.count_windows[step], room)
        tally.add(counted)
        if self.is_counting:
            self.started_ns = tally.oldest_ns
            self.losses_before, self.evicted_before = tally.gaps.losses, tally.gaps.evicted
            self.set_deadline()
        return tally.reached

    def repeat(self, step: int, event: Event, weight: int, limit: int) -> None:
        """Adds a repeat of a step to the evidence: past the limit of events it is only counted."""
        at = next((at for at in reversed(range(len(self.trail))) if self.trail[at].step == step), None)
        keep = sum(len(trace.events) for trace in self.trail) < limit
        events = (event,) if keep else ()
        if at is None:
            self.trail.append(Trace(step, events, 1, None))
        else:
            trace = self.trail[at]
            self.trail[at] = Trace(step, trace.events + events, trace.count + 1, trace.event)
        self.evidence += weight if keep else 0

    def set_deadline(self) -> None:
        """Recomputes the last instant at which an event may still move this partial."""
        table = self.run.table
        deadline = self.exit_ns
        if not self.is_counting:
            deadline = _sooner(deadline, self.started_ns, table.within_ns)
            deadline = _sooner(deadline, self.last_ns, table.step_windows[self.state])
        elif self.tallies is not None:
            for step, tally in self.tallies.items():
                deadline = _sooner(deadline, tally.last_ns, table.count_windows[step])
        self.deadline_ns = deadline


def _sooner(deadline_ns: int, since_ns: int, window_ns: int | None) -> int:
    # min() would make a tuple of its arguments.
    if window_ns is None or since_ns + window_ns >= deadline_ns:
        return deadline_ns
    return since_ns + window_ns
