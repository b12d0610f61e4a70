"""The language's sequence semantics written plainly, to compare the engine with.

One list of partials; every test is evaluated for every one of them, again for every event. It follows the language
reference, section 5, line by line: comments name the line. Shares nothing with the engine.
"""

from __future__ import annotations

from collections.abc import Iterable

from execray.schema.catalog import LOST
from execray.schema.event import Event
from execray.wire.frames import Batch
from policyd.program import CompiledPolicy, KeyKind
from tests.support.reference_partials import Found, Lost, Partial, World
from tests.support.reference_turn import Turn

GRACE_NS = 2_000_000_000


class Reference(World):
    """Runs a set of policies over events, without bounds."""

    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        super().__init__()
        self.policies = list(policies)

    def feed(self, batch: Batch) -> list[Found]:
        """Takes one batch and returns what it completes."""
        rows = (Lost(row[1]) if row[0] == LOST else batch.event(at) for at, row in enumerate(batch.events))
        return self.run(rows)

    def run(self, events: Iterable[Event | Lost]) -> list[Found]:
        """Takes events in order and returns what they complete."""
        out: list[Found] = []
        for event in events:
            if isinstance(event, Lost):
                self.losses += 1
                continue
            self.advance(event.time_ns)
            if event.type.name == "exit":
                self._begin_grace(event)
            for policy in self.policies:
                out += Turn(self, policy, event).take()
        return out

    # ---- 1: expire

    def advance(self, time_ns: int) -> None:
        """Moves the clock, which is the largest time seen: a late event is taken at that clock."""
        self.now = max(self.now, time_ns)
        self._expire()

    def _expire(self) -> None:
        for partial in self.partials:
            self._forget_counted(partial)
        self.partials = [partial for partial in self.partials if not self._is_over(partial)]

    def _forget_counted(self, partial: Partial) -> None:
        """What is older than a count's window leaves; while only that has begun, the partial begins with what is left."""
        policy, within = partial.policy, partial.policy.within_ns
        for step, counted in partial.counts.items():
            times = policy.steps[step].times
            assert times is not None
            windows = [times.within_ns]
            if partial.place.counting is not None:
                windows.append(within)
            counted[:] = [c for c in counted if all(w is None or self.now - c.time_ns <= w for w in windows)]
        if partial.place.counting is not None:
            partial.begin_with_oldest()

    def _is_over(self, partial: Partial) -> bool:
        if partial.place.counting is not None and not partial.counts[partial.place.counting]:
            return True
        within = partial.policy.within_ns
        # Inclusive: exactly `within` still matches.
        if within is not None and self.now - partial.first_ns > within:
            return True
        if partial.ends_ns is not None and self.now > partial.ends_ns:
            return True
        windows = [partial.policy.steps[way.step].within_ns for way in partial.ways()]
        return all(w is not None and self.now - partial.last_ns > w for w in windows)

    def _begin_grace(self, event: Event) -> None:
        """An implicit `until exit`, 2 s later, only where every step is keyed by the actor's own proc.id."""
        for partial in self.partials:
            if partial.policy.key is KeyKind.PROCESS and partial.key == event.actor.id:
                ends = self.now + GRACE_NS
                partial.ends_ns = ends if partial.ends_ns is None else min(partial.ends_ns, ends)
