"""Which of a field's tests hold for one value: all of them together, so the cost is by kind of test and not by number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import re2

from execray.schema.event import DERIVE, Value
from execray.schema.kinds import Kind
from policyd.engine.conditions import Predicate, constants_of, pick, predicate
from policyd.patterns import compile_pattern, regex_options
from policyd.program import FieldRef, Op, Test

# RE2 builds one automaton for a whole set; past this many patterns its memory is better spent on a second one.
_SET_SIZE: Final = 128


class PatternSet:
    """Many patterns searched in one pass."""

    def __init__(self) -> None:
        self._patterns: list[tuple[bytes, int]] = []
        self._sets: list[tuple[re2.Set, list[tuple[bytes, int]]]] = []

    def add(self, pattern: bytes, atom: int) -> None:
        """Adds a pattern that makes an atom true. Raises PatternError."""
        compile_pattern(pattern)  # here rather than at the first event
        self._patterns.append((pattern, atom))

    def build(self) -> None:
        """Compiles the sets; to be called once, after the last pattern."""
        for start in range(0, len(self._patterns), _SET_SIZE):
            chunk = self._patterns[start : start + _SET_SIZE]
            chosen = re2.Set.SearchSet(regex_options())
            for pattern, _ in chunk:
                chosen.Add(pattern)
            # The empty pattern is found in every text. A set that doesn't report it ran out of memory, which RE2 shows
            # in no other way than as "nothing matched".
            chosen.Add(b"")
            chosen.Compile()
            self._sets.append((chosen, chunk))

    def collect(self, value: bytes, out: set[int]) -> None:
        """Adds the atoms of the patterns that match somewhere in value."""
        for chosen, chunk in self._sets:
            found = chosen.Match(value)
            if len(chunk) in found:
                out.update(chunk[index][1] for index in found if index < len(chunk))
            else:
                out.update(atom for pattern, atom in chunk if compile_pattern(pattern).search(value) is not None)


class View:
    """The tests on one field as it is named: a slot, what is derived from it, or one element of it."""

    def __init__(self, ref: FieldRef, derived: bool, fold: bool) -> None:
        self._ref = ref
        self._derive: Callable[[Value], Value] | None = DERIVE[ref.name.removeprefix("parent.")] if derived else None
        self._fold = fold
        self._list = ref.kind is Kind.TEXTS and ref.index is None
        self._exact: dict[object, list[int]] = {}
        self._prefixes: dict[int, dict[bytes, list[int]]] = {}
        self._suffixes: dict[int, dict[bytes, list[int]]] = {}
        self._patterns = PatternSet()
        self._others: list[tuple[int, Predicate]] = []

    def add(self, test: Test, atom: int) -> None:
        """Makes the atom true for the values for which the test, against constants, holds. Raises PatternError."""
        constants = constants_of(test)
        one = len(constants) == 1 or not test.all
        # A network isn't found by hash, and an IPv4 address has two forms: addresses are tested one by one.
        match test.op:
            case Op.EQ | Op.IN if test.field.kind is not Kind.IP:
                for constant in constants:
                    self._exact.setdefault(constant, []).append(atom)
            case Op.STARTSWITH if one:
                _by_length(self._prefixes, constants, atom)
            case Op.ENDSWITH if one:
                _by_length(self._suffixes, constants, atom)
            case Op.CONTAINS if one:
                for constant in constants:
                    if isinstance(constant, bytes):
                        self._patterns.add(re2.escape(constant), atom)
            case Op.MATCH if one and not test.ignore_case:
                for constant in constants:
                    if isinstance(constant, bytes):
                        self._patterns.add(constant, atom)
            case _:
                self._others.append((atom, predicate(test)))

    def build(self) -> None:
        """Makes the view ready; to be called once, after the last test."""
        self._patterns.build()

    def collect(self, value: Value, out: set[int]) -> None:
        """Adds the atoms that hold, given the slot's value. None hold for a missing one."""
        if self._derive is not None:
            value = self._derive(value)
        value = pick(self._ref, value)
        if value is None:
            return
        for atom, holds in self._others:
            if holds(value):
                out.add(atom)
        if self._list:
            assert isinstance(value, tuple)
            for item in value:
                self._scalar(item.lower() if self._fold and isinstance(item, bytes) else item, out)
        else:
            self._scalar(value.lower() if self._fold and isinstance(value, bytes) else value, out)

    def _scalar(self, value: object, out: set[int]) -> None:
        out.update(self._exact.get(value, ()))
        if isinstance(value, bytes):
            for length, table in self._prefixes.items():
                out.update(table.get(value[:length], ()))
            size = len(value)
            for length, table in self._suffixes.items():
                if length <= size:
                    out.update(table.get(value[size - length :], ()))
            self._patterns.collect(value, out)


def _by_length(tables: dict[int, dict[bytes, list[int]]], constants: Iterable[object], atom: int) -> None:
    for constant in constants:
        if isinstance(constant, bytes):
            tables.setdefault(len(constant), {}).setdefault(constant, []).append(atom)
