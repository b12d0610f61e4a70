"""Bit rows: for one slot of an event, a value's row has bit s set where step s does not contradict the value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from execray.errors import PeerError
from execray.schema.event import Value
from execray.schema.kinds import Kind
from policyd.engine.atoms import View
from policyd.program import And, Expr, Not, Or, Quantified, Test

#: Values remembered per slot, and bytes of them, before the cache is cleared as a whole.
CACHE_ENTRIES: Final = 65_536
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


def check_value(kind: Kind, value: object) -> None:
    """Raises PeerError where a value that came over the stream isn't what the catalogue says."""
    if value is not None and not isinstance(value, _TYPES[kind]):
        raise PeerError(f"a {kind.value} came as {type(value).__name__}")


@dataclass(slots=True)
class CacheStats:
    """What the row caches of one slot did."""

    misses: int = 0
    clears: int = 0


class SlotRows:
    """The rows of one slot: built from conditions, computed for a value, cached within a bound.

    The loop over events reads `cache` itself, and calls `miss` for a value that isn't there.
    """

    def __init__(self, kind: Kind, derived: Callable[[str], bool], entries: int = CACHE_ENTRIES) -> None:
        self.kind = kind
        self.cache: dict[Value, int] = {}
        self.stats = CacheStats()
        self.constrained = 0  # the bits of steps that test this slot
        self._derived = derived
        self._entries = entries
        self._bytes = 0
        self._views: dict[tuple[str, int | None, bool], View] = {}
        self._atoms: dict[Test, int] = {}
        # Of what a step asks, one test (or some of several) that must hold and any number that must not are looked up by
        # the true atoms; only what is left is evaluated, and only while the step is still possible.
        self._needs: dict[int, int] = {}  # atom -> steps of which it is the one, or one of several
        self._needing = 0
        self._bars: dict[int, int] = {}  # atom -> steps that it bars
        self._formulas: dict[Expr, int] = {}
        self._compiled: list[tuple[Callable[[set[int]], bool], int]] = []
        self._ones = 0
        self._rows: dict[int, int] = {}  # equal rows are one object

    def add(self, bit: int, conditions: list[Expr]) -> None:
        """Adds what one step asks of this slot. Raises PatternError."""
        self.constrained |= bit
        rest: list[Expr] = []
        for expr in conditions:
            if isinstance(expr, Not) and (tests := _alternatives(expr.item)):
                _mark(self._bars, map(self._atom, tests), bit)
            elif not self._needing & bit and (tests := _alternatives(expr)):
                _mark(self._needs, map(self._atom, tests), bit)
                self._needing |= bit
            else:
                rest.append(expr)
        if rest:
            formula = And(tuple(rest))
            self._formulas[formula] = self._formulas.get(formula, 0) | bit

    def build(self, ones: int) -> None:
        """Makes the rows ready; ones has the bit of every step."""
        self._ones = ones
        self._compiled = [(self._formula(expr), bits) for expr, bits in self._formulas.items()]
        for view in self._views.values():
            view.build()

    def row(self, value: Value) -> int:
        """Computes a value's row. Raises PeerError for a value of another type than the slot's."""
        check_value(self.kind, value)
        true: set[int] = set()
        for view in self._views.values():
            view.collect(value, true)
        passed = self._ones & ~self._needing
        for atom in true:
            passed |= self._needs.get(atom, 0)
        for atom in true:
            passed &= ~self._bars.get(atom, 0)
        for holds, bits in self._compiled:
            if passed & bits and not holds(true):
                passed &= ~bits
        return passed

    def miss(self, value: Value) -> int:
        """Computes a value's row and remembers it. Raises PeerError as row does."""
        row = self.row(value)
        row = self._rows.setdefault(row, row)
        self.stats.misses += 1
        size = _size(value)
        if len(self.cache) >= self._entries or self._bytes + size > CACHE_BYTES:
            self.cache.clear()
            self._rows.clear()
            self._bytes = 0
            self.stats.clears += 1
        self.cache[value] = row
        self._bytes += size
        return row

    def _atom(self, test: Test) -> int:
        atom = self._atoms.get(test)
        if atom is None:
            atom = self._atoms[test] = len(self._atoms)
            key = (test.field.name, test.field.index, test.ignore_case)
            view = self._views.get(key)
            if view is None:
                view = self._views[key] = View(test.field, self._derived(test.field.name), test.ignore_case)
            view.add(test, atom)
        return atom

    def _formula(self, expr: Expr) -> Callable[[set[int]], bool]:
        match expr:
            case Test():
                atom = self._atom(expr)
                return lambda true: atom in true
            case Not(item):
                inner = self._formula(item)
                return lambda true: not inner(true)
            case And(items):
                every = [self._formula(item) for item in items]
                return lambda true: all(part(true) for part in every)
            case Or(items):
                some = [self._formula(item) for item in items]
                return lambda true: any(part(true) for part in some)
            case Quantified():
                raise AssertionError("a quantifier is not of a row")  # plan_step leaves it to the residual


def _alternatives(expr: Expr) -> list[Test]:
    # The tests of which some must hold, where that is all the expression says.
    if isinstance(expr, Test):
        return [expr]
    if isinstance(expr, Or):
        return [item for item in expr.items if isinstance(item, Test)] if all(map(_is_test, expr.items)) else []
    return []


def _is_test(expr: Expr) -> bool:
    return isinstance(expr, Test)


def _mark(table: dict[int, int], atoms: Iterable[int], bit: int) -> None:
    for atom in atoms:
        table[atom] = table.get(atom, 0) | bit


def _size(value: Value) -> int:
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(len(item) for item in value if isinstance(item, bytes))
    return 0
