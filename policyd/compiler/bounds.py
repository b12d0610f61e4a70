"""What a policy can hold at most: known before it runs, from its automaton alone."""

from __future__ import annotations

from collections.abc import Iterable

from execray.schema.records import compared
from policyd.program import MAX_PARTIALS, CompiledPolicy, State, Times

#: What one counted event, or one distinct value, takes, in bytes.
MOMENT_BYTES = 8
VALUE_BYTES = 72


@compared(frozen=True, slots=True)
class Bounds:
    """places: those that a partial can wait in. partials: the most at a time. partial_bytes: the most that one counts with.

    Beside that a partial has evidence, which comes out of a pool that all policies share.
    """

    steps: int
    places: int
    partials: int
    partial_bytes: int

    @property
    def count_bytes(self) -> int:
        """The most bytes that the policy counts with."""
        return self.partials * self.partial_bytes


def bounds_of(policy: CompiledPolicy) -> Bounds:
    """Returns a policy's bounds."""
    places = sum(1 for state in policy.states[1:] if state.transitions)
    counting = any(policy.steps[move.step].times for move in policy.states[0].transitions)
    most = max((_bytes(policy, state) for state in policy.states), default=0)
    return Bounds(len(policy.steps), places, policy.max_partials if places or counting else 0, most)


def most_count_bytes(policies: Iterable[CompiledPolicy]) -> int:
    """Returns the most bytes that policies count with together: those that need most for each partial have all they may have."""
    left, total = MAX_PARTIALS, 0
    found = (bounds_of(policy) for policy in policies if any(step.times for step in policy.steps))
    for bounds in sorted(found, key=lambda bounds: -bounds.partial_bytes):
        partials = min(left, bounds.partials)
        total += partials * bounds.partial_bytes
        left -= partials
    return total


def _bytes(policy: CompiledPolicy, state: State) -> int:
    """What a partial that waits in a place counts with, each step of it for itself."""
    steps = {move.step for move in state.transitions}
    return sum(_size(times) for step in steps if (times := policy.steps[step].times) is not None)


def _size(times: Times) -> int:
    return times.count * (MOMENT_BYTES if times.distinct is None else VALUE_BYTES)


def size_text(size: int) -> str:
    """Returns bytes for people."""
    if size < 1 << 10:
        return f"{size} bytes"
    return f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):.1f} KiB"
