"""What the reference matcher keeps and says: partials, and outputs in a form that compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from execray.schema.event import Event
from policyd.program import CompiledPolicy, State, Transition


@dataclass(frozen=True, slots=True)
class Lost:
    """A gap in the stream."""

    time_ns: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The evidence of one step: which step, the events in order, by id."""

    step: int
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One output. kind: `match`, `excepted`, `step` (a step with an `on step` handler was met)."""

    kind: str
    policy: str
    event: int  # the one that completed it
    time_ns: int
    started_ns: int
    steps: tuple[Taken, ...]
    bindings: tuple[tuple[str, int], ...]
    partial_evidence: bool
    tainted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partial waits: in a state, or at the start with the count of a first step begun."""

    state: int
    counting: int | None = None  # the first step that is being counted


@dataclass(frozen=True, slots=True)
class Counted:
    """One event of a `times` step."""

    time_ns: int
    event: Event
    value: Any  # of the distinct field
    sure: bool
    losses: int


@dataclass(eq=False)
class Partial:
    """(place, key, first time, last time, aliases, evidence)."""

    policy: CompiledPolicy
    key: Any
    place: Place
    begun: int  # a running number
    first_ns: int
    last_ns: int
    losses: int
    ends_ns: int | None = None
    sure: bool = True
    trail: list[tuple[int, list[Event]]] = field(default_factory=list)
    bindings: dict[str, Event] = field(default_factory=dict)
    counts: dict[int, list[Counted]] = field(default_factory=dict)

    def copy(self) -> Partial:
        trail = [(step, list(events)) for step, events in self.trail]
        counts = {step: list(events) for step, events in self.counts.items()}
        return replace(self, trail=trail, bindings=dict(self.bindings), counts=counts)

    @property
    def state(self) -> State:
        return self.policy.states[self.place.state]

    def ways(self) -> Iterator[Transition]:
        """The transitions that it awaits, in text order."""
        for way in self.state.transitions:
            if self.place.counting in (None, way.step):
                yield way

    def begin_with_oldest(self) -> None:
        """Begins a partial that has only begun to count with the oldest event that it still counts."""
        assert self.place.counting is not None
        counted = self.counts[self.place.counting]
        if counted:
            self.first_ns, self.losses = counted[0].time_ns, counted[0].losses


@dataclass(frozen=True, slots=True)
class Move:
    """A partial whose next step was met: as it will be, and what it is now."""

    partial: Partial
    moved: Partial
    way: Transition


@dataclass(eq=False)
class World:
    """What lasts from event to event."""

    partials: list[Partial] = field(default_factory=list)  # in the order in which they came to their places
    now: int = 0  # the clock, in ns
    losses: int = 0
    begun: int = 0
