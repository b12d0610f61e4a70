"""Bit rows: for one slot of an event, a value's row has bit s set where step s does not contradict the value."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from execray.errors import PeerError
from execray.schema.event import Value
from execray.schema.kinds import Kind
from policyd.engine.atoms import Effect, Ranges, View
from policyd.program import And, Expr, FieldRef, Not, Op, Or, Quantified, Test

#: Values remembered per slot, and bytes of them: when the newer half of the cache is full, the older one is forgotten; of rows
#: that are known in part, there is only a newer half.
CACHE_ENTRIES: Final = 16_384
CACHE_BYTES: Final = 8 << 20

_TYPES: Final[dict[Kind, type | tuple[type, ...]]] = {
    Kind.INT: int,
    Kind.BITS: int,
    Kind.DURATION: int,
    Kind.BOOL: (bool, int),
    Kind.BYTES: bytes,
    Kind.PATH: bytes,
    Kind.IP: bytes,
    Kind.TEXTS: tuple,
    Kind.PROCESS: tuple,
}
#: What a comparison says where it doesn't hold, of a number that is there.
_OPPOSITE: Final = {Op.LT: Op.GE, Op.LE: Op.GT, Op.GT: Op.LE, Op.GE: Op.LT}


def check_value(kind: Kind, value: object) -> None:
    """Raises PeerError where a value that came over the stream isn't what the catalogue says."""
    if value is not None and not isinstance(value, _TYPES[kind]):
        raise PeerError(f"a {kind.value} came as {type(value).__name__}")


#: A field as it is named: its name, which element of it, and whether case is ignored.
ViewKey: TypeAlias = tuple[str, int | None, bool]


class _Asked(NamedTuple):
    """One test. key: equal for equal tests of one slot, and quicker to hash."""

    key: tuple[Hashable, ...]
    view: ViewKey
    test: Test


class _Bound(NamedTuple):
    """A comparison of a number, negated where that was under a `not`, and what a missing number then means."""

    view: ViewKey
    missing_fails: bool
    op: Op
    value: int
    field: FieldRef


class Demand(NamedTuple):
    """What a step asks of one slot, sorted by how it is looked up: comparisons; tests of which some must hold; tests of which
    none may; and the rest."""

    bounds: tuple[_Bound, ...]
    needed: tuple[tuple[_Asked, ...], ...]
    barred: tuple[tuple[_Asked, ...], ...]
    rest: Expr | None


def demand_of(conditions: Iterable[Expr]) -> Demand:
    """Sorts what a step asks of one slot; it doesn't depend on the step's bit, and is done once for each policy."""
    bounds: list[_Bound] = []
    found: dict[bool, list[tuple[_Asked, ...]]] = {False: [], True: []}
    rest: list[Expr] = []
    for expr in conditions:
        bound = _bound(expr)
        barred = isinstance(expr, Not)
        tests = _alternatives(expr.item if isinstance(expr, Not) else expr)
        if bound is not None:
            bounds.append(bound)
        elif tests:
            found[barred].append(tuple(map(_asked, tests)))
        else:
            rest.append(expr)
    return Demand(tuple(bounds), tuple(found[False]), tuple(found[True]), And(tuple(rest)) if rest else None)


@dataclass(slots=True)
class CacheStats:
    """What the row cache of one slot did: rows that it did not have, and how often rows were forgotten for want of room."""

    misses: int = 0
    clears: int = 0


@dataclass(slots=True)
class _Level:
    """Bits that need one of some tests; a bit that needs one of some others too does so on the next level."""

    needing: int = 0
    needs: dict[int, int] = field(default_factory=dict)  # atom -> the bits that it satisfies
    free: int = 0  # the bits that need none


class Row:
    """The bits of the steps that a value doesn't contradict; equal ones of one slot are mostly the same object."""

    __slots__ = ("bits",)

    def __init__(self, bits: int) -> None:
        self.bits = bits


class SlotRows:
    """The rows of one slot: built from conditions, computed for a value, cached within a bound.

    The loop over events reads `cache` itself, and calls `miss` for a value that isn't there.
    """

    def __init__(self, kind: Kind, derived: Callable[[str], bool], entries: int = CACHE_ENTRIES) -> None:
        self.kind = kind
        self.cache: dict[Value, Row] = {}
        self._older: dict[Value, Row] = {}
        self.stats = CacheStats()
        self.constrained = 0  # the bits of steps that test this slot
        self._type = _TYPES[kind]
        self._derived = derived
        self._half = max(1, entries // 2)
        self._bytes = 0
        #: Rows as far as somebody asked for them: which bits, and those left of them.
        self._parts: dict[Value, tuple[int, int]] = {}
        self._part_bytes = 0
        self._views: dict[ViewKey, View] = {}
        self._asks: dict[ViewKey, int] = {}  # the bits of the steps that test this view
        self._ranges: dict[tuple[View, bool], Ranges] = {}
        self._atoms: dict[Hashable, int] = {}  # by _Asked.key
        # Most of what steps ask of a slot is that some of several tests hold, that none of several do, or that a number is
        # large or small enough; that is looked up. Only what is left is evaluated, and only while the step is still possible.
        self._levels: list[_Level] = []
        self._bars: dict[int, int] = {}  # atom -> steps that it bars
        self._formulas: dict[Expr, int] = {}
        self._compiled: list[tuple[Callable[[set[int]], bool], int]] = []
        self._read: set[int] = set()  # atoms in formulas
        self._ones = 0
        self._none = Row(0)  # where no test holds
        self._collects: tuple[tuple[int, Callable[[Value, list[Effect]], None]], ...] = ()
        self._fails: list[tuple[View, Ranges]] = []
        self._rows: dict[int, Row] = {}

    def __len__(self) -> int:
        """Returns how many values' rows are remembered."""
        return len(self.cache) + len(self._older) + len(self._parts)

    def add(self, bit: int, demand: Demand) -> None:
        """Adds what one step asks of this slot. Raises PatternError."""
        self.constrained |= bit
        for bound in demand.bounds:
            self._add_bound(bit, bound)
        for tests in demand.needed:
            needs = self._level(bit).needs
            for asked in tests:
                atom = self._atom(asked)
                needs[atom] = needs.get(atom, 0) | bit
                self._asks[asked.view] = self._asks.get(asked.view, 0) | bit
        for tests in demand.barred:
            for asked in tests:
                atom = self._atom(asked)
                self._bars[atom] = self._bars.get(atom, 0) | bit
                self._asks[asked.view] = self._asks.get(asked.view, 0) | bit
        if demand.rest is not None:
            self._formulas[demand.rest] = self._formulas.get(demand.rest, 0) | bit

    def build(self, ones: int) -> None:
        """Makes the rows ready; ones has the bit of every step."""
        self._ones = ones
        for level in self._levels:
            level.free = ones & ~level.needing
        self._compiled = [(self._formula(expr, bits), bits) for expr, bits in self._formulas.items()]
        for view in self._views.values():
            view.build(self._effect)
        for ranges in self._ranges.values():
            ranges.build()
        self._collects = tuple((self._asks.get(key, 0), view.collect) for key, view in self._views.items())
        self._fails = [(view, ranges) for (view, _), ranges in self._ranges.items()]
        self._none = Row(self._combined([]))

    def row(self, value: Value, asked: int = -1) -> int:
        """Computes the bits of a value's row; of others than those asked for it may say anything.

        Raises PeerError for a value of another type than the slot's.
        """
        if value is not None and not isinstance(value, self._type):
            check_value(self.kind, value)
        effects: list[Effect] = []
        for bits, collect in self._collects:
            if asked & bits:
                collect(value, effects)
        row = self._combined(effects) if effects else self._none.bits
        for view, ranges in self._fails:
            failing = ranges.failing(view.value(value))
            if failing:
                row ^= row & failing
        return row

    def among(self, value: Value, bits: int) -> int:
        """Returns those of some bits that the value doesn't contradict; no more is computed than these ask for.

        For values that are new all the time and take long, as a command's words do. Raises PeerError as row does.
        """
        asked, left = self._parts.get(value, (0, 0))
        if bits & ~asked:
            size = _size(value)
            if not asked and (len(self._parts) >= self._half or self._part_bytes + size > CACHE_BYTES // 2):
                self._parts.clear()
                self._part_bytes = 0
                self.stats.clears += 1
            self._part_bytes += 0 if asked else size
            asked = self._answered(asked | bits)
            left = asked & self.row(value, asked)
            self._parts[value] = asked, left
            self.stats.misses += 1
        return bits & left

    def _answered(self, asked: int) -> int:
        """Returns the bits that are computed with those asked for: of all steps that ask of the same forms of the value.

        Else a process at which one step after another becomes possible would have the same words searched for each of them.
        """
        others = 0
        for bits, _ in self._collects:
            if not asked & bits:
                others |= bits
        return self._ones & ~others

    def miss(self, value: Value) -> Row:
        """Returns the row of a value that isn't in `cache`, and puts it there. Raises PeerError as row does."""
        row = self._older.pop(value, None)
        if row is None:
            row = self._shared(self.row(value))
            self.stats.misses += 1
        size = _size(value)
        if len(self.cache) >= self._half or self._bytes + size > CACHE_BYTES // 2:
            # What was asked for since the last time stays at hand, so that what is new all the time doesn't push out the rest.
            self._older = self.cache.copy()
            self.cache.clear()
            self._rows.clear()
            self._bytes = 0
            self.stats.clears += 1
        self.cache[value] = row
        self._bytes += size
        return row

    def _shared(self, bits: int) -> Row:
        if bits == self._none.bits:
            return self._none
        row = self._rows.get(bits)
        if row is None:
            row = self._rows[bits] = Row(bits)
        return row

    def _add_bound(self, bit: int, bound: _Bound) -> None:
        key = (self._view(bound.view, bound.field), bound.missing_fails)
        ranges = self._ranges.get(key)
        if ranges is None:
            ranges = self._ranges[key] = Ranges(bound.missing_fails)
        ranges.add(bound.op, bound.value, bit)

    def _level(self, bit: int) -> _Level:
        for level in self._levels:
            if not level.needing & bit:
                break
        else:
            level = _Level()
            self._levels.append(level)
        level.needing |= bit
        return level

    def _view(self, key: ViewKey, field: FieldRef) -> View:
        view = self._views.get(key)
        if view is None:
            name, _, ignore_case = key
            view = self._views[key] = View(field, self._derived(name), ignore_case)
        return view

    def _atom(self, asked: _Asked) -> int:
        atom = self._atoms.get(asked.key)
        if atom is None:
            atom = self._atoms[asked.key] = len(self._atoms)
            self._view(asked.view, asked.test.field).add(asked.test, atom)
        return atom

    def _effect(self, atoms: Sequence[int]) -> Effect:
        needed = [0] * len(self._levels)
        barred = 0
        for atom in atoms:
            for at, level in enumerate(self._levels):
                needed[at] |= level.needs.get(atom, 0)
            barred |= self._bars.get(atom, 0)
        return Effect(tuple(needed), barred, tuple(atom for atom in atoms if atom in self._read))

    def _combined(self, effects: list[Effect]) -> int:
        row, barred = self._ones, 0
        for at, level in enumerate(self._levels):
            needed = level.free
            for effect in effects:
                needed |= effect.needed[at]
            row &= needed
        for effect in effects:
            barred |= effect.barred
        if barred:
            row ^= row & barred
        if self._compiled:
            true = {atom for effect in effects for atom in effect.atoms}
            for holds, bits in self._compiled:
                if row & bits and not holds(true):
                    row &= ~bits
        return row

    def _formula(self, expr: Expr, bits: int) -> Callable[[set[int]], bool]:
        match expr:
            case Test():
                asked = _asked(expr)
                atom = self._atom(asked)
                self._read.add(atom)
                self._asks[asked.view] = self._asks.get(asked.view, 0) | bits
                return lambda true: atom in true
            case Not(item):
                inner = self._formula(item, bits)
                return lambda true: not inner(true)
            case And(items):
                every = [self._formula(item, bits) for item in items]
                return lambda true: all(part(true) for part in every)
            case Or(items):
                some = [self._formula(item, bits) for item in items]
                return lambda true: any(part(true) for part in some)
            case Quantified():
                raise AssertionError("a quantifier is not of a row")  # plan_step leaves it to the residual


def _asked(test: Test) -> _Asked:
    field = test.field
    view = (field.name, field.index, test.ignore_case)
    return _Asked((*view, test.op, test.value, test.all), view, test)


def _bound(expr: Expr) -> _Bound | None:
    test = expr.item if isinstance(expr, Not) else expr
    if not isinstance(test, Test) or test.op not in _OPPOSITE or type(test.value) is not int:
        return None
    plain = test is expr
    return _Bound(_asked(test).view, plain, test.op if plain else _OPPOSITE[test.op], test.value, test.field)


def _alternatives(expr: Expr) -> list[Test]:
    # The tests of which some must hold, where that is all the expression says.
    if isinstance(expr, Test):
        return [expr]
    if isinstance(expr, Or):
        tests = [item for item in expr.items if isinstance(item, Test)]
        return tests if len(tests) == len(expr.items) else []
    return []


def _size(value: Value) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(len(item) for item in value if isinstance(item, bytes))
    return 0
