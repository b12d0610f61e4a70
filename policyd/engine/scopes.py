"""What waits under one key."""

from __future__ import annotations

from policyd.engine.partials import Partial, PolicyRun
from policyd.engine.starts import Cohort, Start


class Scope:
    """What waits under one key: the awaited bits of all policies, their partials by place, the first to come first, and starts.

    A policy never has both a bit in a start and a partial in the same place.
    """

    __slots__ = ("mask", "places", "starts")

    def __init__(self) -> None:
        self.mask = 0
        self.places: dict[PolicyRun, dict[int, list[Partial]]] = {}
        self.starts: dict[Cohort, Start] = {}

    def refresh(self, run: PolicyRun) -> None:
        """Recomputes the bits of one policy after what it has here changed."""
        table = run.table
        mask = self.mask ^ (self.mask & table.bits)  # unlike `& ~`, without a negative number, which takes far longer
        places = self.places.get(run)
        if places is not None:
            for state in places:
                mask |= table.awaits[state]
        if self.start_of(run) is not None:
            assert table.plain is not None
            mask |= table.awaits[table.plain.target]
        self.mask = mask

    def start_of(self, run: PolicyRun) -> Start | None:
        """Returns the start in which a policy has a bit."""
        if run.cohort is None or not self.starts:
            return None
        start = self.starts.get(run.cohort)
        return start if start is not None and start.members & run.member else None

    def held(self, run: PolicyRun) -> list[tuple[int, list[Partial]]]:
        """Returns a policy's partials by place; the one of a start is made here, and has its `source`."""
        places = self.places.get(run)
        found = [(state, list(partials)) for state, partials in places.items()] if places is not None else []
        start = self.start_of(run)
        if start is not None:
            assert run.table.plain is not None
            found.append((run.table.plain.target, [start.partial(run)]))
        return found
