"""What the gate remembers, in Python: which policies have begun, where, and until when that counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from execray.gate.plan import CELL_SLOTS, MAX_LOOKS, MAX_WAITS, MAX_WORDS, WORD_BITS, CodeTest, GatePlan, Input
from execray.gate.verdict import MAX_ERRNO, Facts, failed_bits, possible, words

#: Processes that something has begun in, at most; of the others it counts for the whole host.
MAX_CELLS: Final = 8192
FOR_EVER: Final = (1 << 64) - 1
_WORD: Final = (1 << WORD_BITS) - 1


def until_ns(window_ns: int | None, time_ns: int) -> int:
    """Returns until when counts what has begun at a time; FOR_EVER: without end."""
    return FOR_EVER if window_ns is None else min(time_ns + window_ns, FOR_EVER)


def any_of(slot: int) -> int:
    """Returns the slot that stands for all of its kind: what has begun in any of them has in that."""
    return 0 if slot < CELL_SLOTS else CELL_SLOTS


def with_any(ends: Mapping[int, int]) -> dict[int, int]:
    """Returns ends by slots, and those of the slots that stand for all of a kind."""
    out = dict(ends)
    for slot, end in ends.items():
        out[any_of(slot)] = max(out.get(any_of(slot), 0), end)
    return out


def with_longest(windows: Mapping[int, int | None]) -> dict[int, int | None]:
    """Returns windows by slots, and of the slots that stand for all of a kind the longest."""
    out = dict(windows)
    for slot, window in windows.items():
        known = out.get(any_of(slot), 0)
        out[any_of(slot)] = None if window is None or known is None else max(window, known)
    return out


def waits_for(plan: GatePlan, code: CodeTest) -> tuple[int, ...]:
    """Returns the slots that all of a code's bits wait for, those of all where they are many; none where some don't wait."""
    mine = plan.rows[code.all] & words(code)
    return () if code.code in plan.open_codes else _waits(plan, mine) or ()


def failed_waits_for(plan: GatePlan, code: CodeTest) -> tuple[int, ...] | None:
    """Returns the same of the bits that a failed call may meet; None where some don't wait, () where there are none."""
    mine = failed_bits(plan, code)
    if code.code in plan.open_codes:
        return None
    return _waits(plan, mine) if mine else ()


def _waits(plan: GatePlan, mine: int) -> tuple[int, ...] | None:
    if mine & plan.rows[plan.first]:
        return None
    found = {plan.slots.get(bit) for bit in bits(mine)}
    slots = sorted(slot for slot in found if slot is not None)
    if len(slots) < len(found):
        return None
    return tuple(slots if len(slots) <= MAX_WAITS else dict.fromkeys(map(any_of, slots)))


class Memory:
    """The state of one plan, from when it came. It is forgotten by time, by the end of a process, and with the plan."""

    def __init__(self, plan: GatePlan, since_ns: int = 0, max_cells: int = MAX_CELLS) -> None:
        """What has begun before since_ns isn't known: until it is, each slot counts as begun then."""
        self._plan = plan
        self._first = plan.rows[plan.first]
        self._max_cells = max_cells
        self._settled = with_any({slot: until_ns(window, since_ns) for slot, window in plan.windows.items()})
        self._windows = with_longest(plan.windows)
        self._waits = {code.code: waits_for(plan, code) for code in plan.codes}
        self._failed = {code.code: failed_waits_for(plan, code) for code in plan.codes}
        self._host: dict[int, int] = {}
        self._cells: dict[int, dict[int, int]] = {}  # by pid
        self.begun = 0  # how often something began

    def settle(self, ends: Mapping[int, int]) -> None:
        """Takes the ends, in ns, of what had begun before the plan came, by slots; of the other slots nothing had."""
        self._settled = with_any(ends)

    def ended(self, pid: int) -> None:
        """Forgets a process, whose last thread has ended."""
        self._cells.pop(pid, None)

    def passes(self, facts: Facts, pid: int, time_ns: int) -> bool:
        """Whether an event passes; to be asked once for each, in their order. pid: who acts."""
        ret = facts.numbers.get(Input.RET)
        failed = self._failed.get(facts.code) if ret is not None and -MAX_ERRNO <= ret < 0 else None
        if failed is not None and not any(self._has_begun(slot, pid, time_ns) for slot in failed):
            return False
        waits = self._waits.get(facts.code)
        if waits and not any(self._has_begun(slot, pid, time_ns) for slot in waits):
            return False
        found = possible(self._plan, facts)
        for bit in bits(found & self._first):
            if bit in self._plan.slots:
                self._begin(self._plan.slots[bit], pid, time_ns)
        if facts.code in self._plan.open_codes or found & self._first:
            return True
        return any(
            self._awaits(found >> at * WORD_BITS & _WORD, at * WORD_BITS, pid, time_ns) for at in range(MAX_WORDS)
        )

    def _begin(self, slot: int, pid: int, time_ns: int) -> None:
        self.begun += 1
        ends = self._host
        if slot < CELL_SLOTS and (pid in self._cells or len(self._cells) < self._max_cells):
            ends = self._cells.setdefault(pid, {})
        for at in (slot, any_of(slot)):
            ends[at] = max(ends.get(at, 0), until_ns(self._windows[at], time_ns))

    def _awaits(self, word: int, base: int, pid: int, time_ns: int) -> bool:
        looks = list(bits(word))
        slots = [self._plan.slots.get(base + bit) for bit in looks[:MAX_LOOKS]]
        begun = any(slot is None or self._has_begun(slot, pid, time_ns) for slot in slots)
        return begun or len(looks) > MAX_LOOKS

    def _has_begun(self, slot: int, pid: int, time_ns: int) -> bool:
        ends = [self._settled.get(slot, 0), self._host.get(slot, 0)]
        if slot < CELL_SLOTS:
            ends.append(self._cells.get(pid, {}).get(slot, 0))
        return 0 < max(ends) >= time_ns


def bits(row: int) -> Iterator[int]:
    """Yields the bits of a row, the lowest first."""
    while row:
        yield (row & -row).bit_length() - 1
        row &= row - 1
