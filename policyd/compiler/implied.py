"""Whether one condition follows from another, as far as that is plain to see. A no means: not seen."""

from __future__ import annotations

from collections.abc import Callable

from policyd.program import And, Expr, FieldRef, Op, Or, Test

# Questions asked about one pair of conditions, and texts compared for one of these.
_MAX_QUESTIONS = 2_000
_MAX_COMPARED = 10_000

_VALUES = (Op.EQ, Op.IN)
_TEXT: dict[Op, Callable[[bytes, bytes], bool]] = {
    Op.STARTSWITH: bytes.startswith,
    Op.ENDSWITH: bytes.endswith,
    Op.CONTAINS: lambda text, part: part in text,
}
_ORDER: dict[Op, Callable[[int, int], bool]] = {
    Op.LT: lambda a, b: a < b,
    Op.LE: lambda a, b: a <= b,
    Op.GT: lambda a, b: a > b,
    Op.GE: lambda a, b: a >= b,
}


def implies(given: Expr, wanted: Expr) -> bool:
    """Whether every event that meets `given` meets `wanted`."""
    return _Question().ask(given, wanted)


class _Question:
    """One question and those that it leads to, within a bound."""

    def __init__(self) -> None:
        self._left = _MAX_QUESTIONS

    def ask(self, given: Expr, wanted: Expr) -> bool:
        self._left -= 1
        if self._left < 0 or given == wanted:
            return self._left >= 0
        if isinstance(wanted, And):
            return all(self.ask(given, item) for item in wanted.items)
        if isinstance(given, Or):
            return bool(given.items) and all(self.ask(item, wanted) for item in given.items)
        if isinstance(given, Test) and isinstance(wanted, Test):
            return _test_implies(given, wanted)
        if isinstance(wanted, Or) and any(self.ask(given, item) for item in wanted.items):
            return True
        return isinstance(given, And) and any(self.ask(item, wanted) for item in given.items)


def _test_implies(given: Test, wanted: Test) -> bool:
    if given.field != wanted.field or isinstance(given.value, FieldRef) or isinstance(wanted.value, FieldRef):
        return False
    if wanted.op is Op.EXISTS:
        return True
    if given.all or wanted.all or given.ignore_case != wanted.ignore_case:
        return False
    return _values_imply(given.op, _constants(given), wanted.op, _constants(wanted))


def _values_imply(given: Op, have: tuple[object, ...], wanted: Op, want: tuple[object, ...]) -> bool:
    if given in _VALUES and wanted in _VALUES:
        return set(have) <= set(want)
    if len(have) * len(want) > _MAX_COMPARED:
        return False
    if given in _VALUES and wanted in _ORDER:
        compare = _ORDER[wanted]
        return all(isinstance(a, int) and isinstance(b, int) and compare(a, b) for a in have for b in want)
    # A text that begins with a long prefix begins with a shorter one; one that is some text has that one's parts.
    holds = _TEXT.get(wanted)
    if holds is None or given not in (*_VALUES, wanted):
        return False
    return all(any(isinstance(a, bytes) and isinstance(b, bytes) and holds(a, b) for b in want) for a in have)


def _constants(test: Test) -> tuple[object, ...]:
    return test.value if isinstance(test.value, tuple) else (test.value,)
