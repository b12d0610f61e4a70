"""From the loaded policies to the gate's plan. Where something doesn't fit, more passes, and the report says so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from execray.gate.encoding import encode_plan
from execray.gate.hashes import comm_key
from execray.gate.memory import until_ns
from execray.gate.plan import (
    ALL_BITS,
    CELL_SLOTS,
    MAX_BOUNDS,
    MAX_KEYS,
    MAX_MASKS,
    MAX_NUMBERS,
    MAX_ROWS,
    MAX_SLOTS,
    MAX_WORDS,
    ROW_ALL,
    ROW_NONE,
    WORD_BITS,
    CodeTest,
    GatePlan,
    Input,
    NumberKind,
    NumberTest,
)
from policyd.engine.table import PolicyTable
from policyd.gate.known import Known
from policyd.gate.needs import Mask, Part, key_of
from policyd.gate.spans import EVERY, Spans
from policyd.gate.ways import ALWAYS, Bit, longest_ns, of_process

#: Added to the window: events come in the order of the ring, which is not quite that of their times.
SLACK_NS: Final = 1_000_000_000


class _FullError(Exception):
    """A table of the plan is full."""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and why the codes that it leaves open are that, but for those that are never dropped.

    slots: where the plan keeps what has begun, by the policies' numbers; of a policy without a slot, everything is awaited.
    """

    plan: GatePlan
    raw: bytes
    open_reasons: dict[int, str] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    failed_execs: bool = False  # whether some step may be met by one

    def ends(self, begun: Iterable[int], now_ns: int) -> dict[int, int]:
        """Returns the slots of the policies that have begun, by their numbers, and until when that counts at most, in ns."""
        slots = {self.slots[number] for number in begun if number in self.slots}
        return {slot: until_ns(self.plan.windows[slot], now_ns) for slot in slots}


def build_plan(tables: Sequence[PolicyTable], known: Known | None = None) -> Built:
    """Returns the plan of the loaded policies, as an object and as bytes. known: what was found out for earlier plans."""
    known = known or Known()
    bits = known.bits(tables)
    by_code: dict[int, list[Bit]] = defaultdict(list)
    for bit in bits:
        by_code[bit.asked.code].append(bit)
    reasons: dict[int, str] = {}
    for code, found in by_code.items():
        if any(bit.asked.is_anything and bit.waits is None for bit in found):
            reasons[code] = "a first step asks for nothing that the kernel can test"
    while True:
        tested = {code: found for code, found in by_code.items() if code not in reasons or _opens(found)}
        try:
            builder = _Builder(tables, tested, frozenset(reasons) | ALWAYS)
            plan = builder.plan()
            return Built(plan, encode_plan(plan), reasons, builder.slots, known.failed_execs)
        except (_FullError, ValueError):
            # The one with most bits is what fills the tables. With the codes that a sequence begins on, it ends with nothing.
            left = {code: len(found) for code, found in by_code.items() if code not in reasons}
            if not left:
                return Built(
                    _open_plan(by_code), encode_plan(_open_plan(by_code)), reasons, failed_execs=known.failed_execs
                )
            reasons[max(left, key=lambda code: left[code])] = "there are more steps than the kernel has room for"


def _opens(bits: Iterable[Bit]) -> bool:
    """Whether some policy begins on these, so that the kernel has to know when, also where all of them pass."""
    return any(bit.opens is not None for bit in bits)


def _open_plan(codes: Iterable[int]) -> GatePlan:
    return GatePlan(open_codes=frozenset(codes) | ALWAYS)


class _Builder:
    """One attempt. Raises _FullError where a table is too small."""

    def __init__(
        self, tables: Sequence[PolicyTable], by_code: dict[int, list[Bit]], open_codes: frozenset[int]
    ) -> None:
        self._tables = tables
        self._open = open_codes
        self._by_code = by_code
        self._rows: list[int] = [0, ALL_BITS]
        self._row_of: dict[int, int] = {0: ROW_NONE, ALL_BITS: ROW_ALL}
        self._key_bits: dict[int, int] = defaultdict(int)
        self._lengths: set[int] = set()
        self._named = 0
        self._any_named = 0
        self._exact: set[int] = set()  # keys of whole paths
        self._at: dict[Bit, int] = {}
        self.slots: dict[int, int] = {}  # by policies

    def plan(self) -> GatePlan:
        """Returns the plan."""
        codes, word = [], 0
        for code, bits in sorted(self._by_code.items()):
            end = word + -(-len(bits) // WORD_BITS)
            if end > MAX_WORDS:
                raise _FullError
            numbered = {bit: word * WORD_BITS + index for index, bit in enumerate(bits)}
            self._at |= numbered
            codes.append(self._code(code, word, end, numbered))
            word = end
        if len(self._key_bits) > MAX_KEYS:
            raise _FullError
        for key in self._exact:  # by these the sensor knows what a file is meant by
            self._key_bits[key] |= self._any_named
        keys = {key: self._row(bits) for key, bits in self._key_bits.items()}
        first, slots, windows = self._awaiting()
        named = self._row(self._named)
        return GatePlan(
            codes=tuple(codes),
            open_codes=self._open,
            rows=tuple(self._rows),
            keys=keys,
            suffixes=tuple(sorted(self._lengths)),
            first=first,
            named=named,
            slots=slots,
            windows=windows,
        )

    def _code(self, code: int, first: int, end: int, bits: dict[Bit, int]) -> CodeTest:
        whole = free = nameless = missing = comm_free = 0
        for bit, at in bits.items():
            mask, need = 1 << at, bit.asked.path
            whole |= mask
            if need is None:
                free, nameless, missing = free | mask, nameless | mask, missing | mask
            else:
                free |= mask if need.open else 0
                nameless |= mask if need.nameless else 0
                self._named |= mask if need.named else 0
                self._any_named |= mask if need.named and not need.atoms else 0
                for atom in need.atoms:
                    self._key_bits[key_of(atom)] |= mask
                    if atom[0] is Part.EXACT:
                        self._exact.add(key_of(atom))
                    if atom[0] is Part.SUFFIX:
                        self._lengths.add(len(atom[1]))
            if bit.asked.names is None:
                comm_free |= mask
            else:
                for name in bit.asked.names:
                    self._key_bits[comm_key(name)] |= mask
        numbers = self._numbers(bits, whole)
        row = self._row
        return CodeTest(code, first, end, row(whole), row(free), row(nameless), row(missing), row(comm_free), numbers)

    def _numbers(self, bits: dict[Bit, int], whole: int) -> tuple[NumberTest, ...]:
        ranges: dict[Input, list[tuple[Spans, int]]] = defaultdict(list)
        sets: dict[Input, list[tuple[Mask, int]]] = defaultdict(list)
        for bit, at in bits.items():
            for which, wanted in bit.asked.numbers:
                ranges[which].append((wanted, 1 << at))
            for which, mask in bit.asked.masks:
                sets[which].append((mask, 1 << at))
        tests = [(len(found), which, NumberKind.RANGES) for which, found in ranges.items()]
        tests += [(len(found), which, NumberKind.BITS) for which, found in sets.items()]
        chosen = sorted(tests, reverse=True)[:MAX_NUMBERS]
        return tuple(
            self._ranges(which, ranges[which], whole)
            if kind is NumberKind.RANGES
            else self._sets(which, sets[which], whole)
            for _, which, kind in chosen
        )

    def _ranges(self, which: Input, asked: list[tuple[Spans, int]], whole: int) -> NumberTest:
        bounds = _bounds([wanted for wanted, _ in asked])
        edges = [EVERY[0][0], *bounds, EVERY[0][1] + 1]
        first = len(self._rows)
        for low, end in pairwise(edges):
            row = whole
            for wanted, bit in asked:
                if not any(start < end and low <= stop for start, stop in wanted):
                    row &= ~bit
            self._append(row)
        return NumberTest(which, NumberKind.RANGES, tuple(bounds), first)

    def _sets(self, which: Input, asked: list[tuple[Mask, int]], whole: int) -> NumberTest:
        counts = Counter(mask for (mask, _), _ in asked)
        chosen = [mask for mask, _ in counts.most_common(MAX_MASKS)]
        first = len(self._rows)
        for mask in chosen:
            without = with_ = whole
            for (other, is_set), bit in asked:
                if other == mask and is_set:
                    without &= ~bit
                elif other == mask:
                    with_ &= ~bit
            self._append(without)
            self._append(with_)
        return NumberTest(which, NumberKind.BITS, tuple(chosen), first)

    def _awaiting(self) -> tuple[int, dict[int, int], dict[int, int | None]]:
        """Returns the row of the bits that are always awaited, the slots of bits, and the windows of slots."""
        begins = {bit.opens for bit in self._at} - {None}
        waits = {bit.waits for bit in self._at} - {None}
        policies = [number for number in range(len(self._tables)) if number in begins | waits]
        windows: dict[int, int | None] = {}
        for first, end, by_process in ((1, CELL_SLOTS, True), (CELL_SLOTS + 1, MAX_SLOTS, False)):
            mine = [number for number in policies if of_process(self._tables[number].policy) is by_process]
            windows |= self._give_slots(mine, first, end)
        slots, always = {}, 0
        for bit, at in self._at.items():
            policy = bit.opens if bit.waits is None else bit.waits
            always |= 1 << at if bit.waits is None else 0
            if policy is not None:
                slots[at] = self.slots[policy]
        return self._row(always), slots, windows

    def _give_slots(self, policies: list[int], first: int, end: int) -> dict[int, int | None]:
        """Gives policies slots from first on; returns these slots' windows. Those that share one have windows that are alike."""
        lasting = {number: longest_ns(self._tables[number].policy) for number in policies}
        in_order = sorted(policies, key=lambda number: (lasting[number] is None, lasting[number] or 0))
        each = -(-len(policies) // (end - first))
        windows: dict[int, int | None] = {}
        for index, number in enumerate(in_order):
            slot, window = first + index // each, lasting[number]
            self.slots[number] = slot
            windows[slot] = None if window is None else window + SLACK_NS  # the longest comes last
        return windows

    def _row(self, bits: int) -> int:
        if bits not in self._row_of:
            self._row_of[bits] = self._append(bits)
        return self._row_of[bits]

    def _append(self, bits: int) -> int:
        if len(self._rows) >= MAX_ROWS:
            raise _FullError
        self._rows.append(bits)
        return len(self._rows) - 1


def _bounds(wanted: Iterable[Spans]) -> list[int]:
    """Returns where one class of numbers ends and the next begins; of too many, those of short lists and those farthest apart."""
    asked = set(wanted)
    found = _edges(asked)
    most = max(map(len, asked), default=0)
    while len(found) > MAX_BOUNDS and most > 2:  # a long list is told apart in part before a short one is
        most = max(2, most // 2)
        asked = {_coarse(spans, most) for spans in asked}
        found = _edges(asked)
    while len(found) > MAX_BOUNDS:
        gaps = [other - one for one, other in pairwise(found)]
        closest = gaps.index(min(gaps))
        del found[
            closest + 1 if closest + 2 < len(found) else closest
        ]  # not the last one: all beyond would be in one class
    return found or [0]  # of what no number meets there is one class, too


def _edges(asked: Iterable[Spans]) -> list[int]:
    found = sorted({edge for spans in asked for low, high in spans for edge in (low, high + 1)})
    return [edge for edge in found if EVERY[0][0] < edge <= EVERY[0][1]]


def _coarse(spans: Spans, most: int) -> Spans:
    """Returns the ranges as at most so many: what lies between two of them is filled in, the narrowest first."""
    if len(spans) <= most:
        return spans
    gaps = sorted(range(1, len(spans)), key=lambda at: spans[at][0] - spans[at - 1][1], reverse=True)
    cuts = [0, *sorted(gaps[: most - 1]), len(spans)]
    return tuple((spans[first][0], spans[end - 1][1]) for first, end in pairwise(cuts))
