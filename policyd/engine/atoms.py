"""Which of a field's tests hold for one value: all of them together, so the cost is by kind of test and not by number."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import re2

from execray.schema.event import DERIVE, Value
from execray.schema.kinds import Kind
from policyd.engine.conditions import Predicate, constants_of, pick, predicate
from policyd.patterns import compile_pattern, regex_options
from policyd.program import Constant, FieldRef, Op, Test

# RE2 builds one automaton for a whole set; past this many patterns its memory is better spent on a second one.
_SET_SIZE: Final = 256
#: Elements of lists remembered for each view, and of what length: of a command's words, most have been met before.
_WORDS: Final = 1024
_WORD_BYTES: Final = 64


class Effect:
    """What follows for the bits of steps where some tests hold.

    needed: by level, the bits that have one of the tests which they need there. barred: the bits that must not have it. atoms:
    the tests, where a formula reads them.
    """

    __slots__ = ("atoms", "barred", "needed")

    def __init__(self, needed: tuple[int, ...], barred: int, atoms: tuple[int, ...]) -> None:
        self.needed = needed
        self.barred = barred
        self.atoms = atoms


class PatternSet:
    """Many patterns searched in one pass."""

    def __init__(self) -> None:
        self._patterns: list[tuple[bytes, int]] = []
        self._sets: list[tuple[re2.Set, list[tuple[bytes, Effect]]]] = []

    def add(self, pattern: bytes, atom: int) -> None:
        """Adds a pattern that makes an atom true. Raises PatternError."""
        compile_pattern(pattern)  # here rather than at the first event
        self._patterns.append((pattern, atom))

    def build(self, effect: Callable[[Sequence[int]], Effect]) -> None:
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
            self._sets.append((chosen, [(pattern, effect((atom,))) for pattern, atom in chunk]))

    def collect(self, value: bytes, out: list[Effect]) -> None:
        """Adds the effects of the patterns that match somewhere in value."""
        for chosen, chunk in self._sets:
            found = chosen.Match(value)
            if found is None or len(chunk) not in found:
                out += [effect for pattern, effect in chunk if compile_pattern(pattern).search(value) is not None]
            elif len(found) > 1:
                out += [chunk[index][1] for index in found if index < len(chunk)]


class Ends:
    """Prefixes of texts, or suffixes. Most texts are done with after one look at as many bytes as the shortest has."""

    def __init__(self, of_end: bool) -> None:
        self._of_end = of_end
        self._constants: dict[bytes, list[int]] = {}
        self._short = 0
        self._lengths: dict[bytes, list[int]] = {}  # by the bytes that the shortest has too
        self._effects: dict[bytes, Effect] = {}

    def add(self, constants: Iterable[Constant], atom: int) -> None:
        """Makes an atom true for texts that begin, or end, with one of the constants."""
        for constant in constants:
            if isinstance(constant, bytes):
                self._constants.setdefault(constant, []).append(atom)

    def build(self, effect: Callable[[Sequence[int]], Effect]) -> None:
        """To be called once, after the last constant."""
        self._effects = {constant: effect(atoms) for constant, atoms in self._constants.items()}
        self._short = min(map(len, self._constants), default=0)
        for constant in self._constants:
            lengths = self._lengths.setdefault(self._part(constant, self._short), [])
            if len(constant) not in lengths:
                lengths.append(len(constant))

    def collect(self, value: bytes, out: list[Effect]) -> None:
        """Adds the effects of the constants that value begins, or ends, with."""
        short = self._short
        part = value[len(value) - short :] if self._of_end and short <= len(value) else value[:short]
        for length in self._lengths.get(part, ()):
            found = self._effects.get(self._part(value, length)) if length <= len(value) else None
            if found is not None:
                out.append(found)

    def _part(self, value: bytes, length: int) -> bytes:
        return value[len(value) - length :] if self._of_end and length <= len(value) else value[:length]


class Ranges:
    """Comparisons of numbers: the bits of those that fail, whatever their number, by two searches."""

    def __init__(self, missing_fails: bool) -> None:
        self._missing_fails = missing_fails
        self._bits: dict[bool, dict[int, int]] = {False: {}, True: {}}  # of an upper bound -> bound -> bits
        self._bounds: dict[bool, list[int]] = {}
        self._failing: dict[bool, list[int]] = {}
        self._all = 0

    def add(self, op: Op, constant: int, bit: int) -> None:
        """Lets a bit fail where `value op constant` doesn't hold."""
        bound = constant + {Op.GT: 1, Op.LT: -1}.get(op, 0)
        bits = self._bits[op in (Op.LT, Op.LE)]
        bits[bound] = bits.get(bound, 0) | bit
        self._all |= bit

    def build(self) -> None:
        """To be called once, after the last comparison."""
        for upper, bits in self._bits.items():
            self._bounds[upper] = bounds = sorted(bits)
            failing = [0]
            for bound in bounds if upper else reversed(bounds):
                failing.append(failing[-1] | bits[bound])
            self._failing[upper] = failing

    def failing(self, value: Value) -> int:
        """Returns the bits of the comparisons that don't hold."""
        if not isinstance(value, int):
            return self._all if self._missing_fails else 0
        too_large = self._failing[True][bisect_left(self._bounds[True], value)]
        lower = self._bounds[False]
        return too_large | self._failing[False][len(lower) - bisect_right(lower, value)]


class View:
    """The tests on one field as it is named: a slot, what is derived from it, or one element of it."""

    def __init__(self, ref: FieldRef, derived: bool, fold: bool) -> None:
        self._ref = ref
        self._derive: Callable[[Value], Value] | None = DERIVE[ref.name.removeprefix("parent.")] if derived else None
        self._fold = fold
        self._list = ref.kind is Kind.TEXTS and ref.index is None
        self._whole = not derived and ref.index is None  # the field's value is the slot's
        self._exact: dict[object, list[int]] = {}
        self._prefixes, self._suffixes = Ends(of_end=False), Ends(of_end=True)
        self._patterns = PatternSet()
        self._others: list[tuple[int, Predicate]] = []
        self._used: set[Any] = set()  # of prefixes, suffixes and patterns
        self._effects: dict[object, Effect] = {}
        self._tested: list[tuple[Effect, Predicate]] = []
        self._searches: tuple[Callable[[bytes, list[Effect]], None], ...] = ()
        self._words: dict[bytes, list[Effect]] = {}

    @property
    def words(self) -> int:
        """How many elements of lists are remembered."""
        return len(self._words)

    def value(self, value: Value) -> Value:
        """Returns the field's value, given the slot's."""
        if self._derive is not None:
            value = self._derive(value)
        return pick(self._ref, value)

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
                self._prefixes.add(constants, atom)
                self._used.add(self._prefixes)
            case Op.ENDSWITH if one:
                self._suffixes.add(constants, atom)
                self._used.add(self._suffixes)
            case Op.CONTAINS if one:
                self._search([re2.escape(constant) for constant in constants if isinstance(constant, bytes)], atom)
            case Op.MATCH if one and not test.ignore_case:
                self._search([constant for constant in constants if isinstance(constant, bytes)], atom)
            case _:
                self._others.append((atom, predicate(test)))

    def build(self, effect: Callable[[Sequence[int]], Effect]) -> None:
        """Makes the view ready; to be called once, after the last test. effect: what follows where some atoms are true."""
        self._effects = {constant: effect(atoms) for constant, atoms in self._exact.items()}
        self._tested = [(effect((atom,)), holds) for atom, holds in self._others]
        parts = [part for part in (self._prefixes, self._suffixes, self._patterns) if part in self._used]
        for part in parts:
            part.build(effect)
        self._searches = tuple(part.collect for part in parts)

    def collect(self, value: Value, out: list[Effect]) -> None:
        """Adds the effects of the tests that hold, given the slot's value. None hold for a missing one."""
        if not self._whole:
            value = self.value(value)
        if value is None:
            return
        for effect, holds in self._tested:
            if holds(value):
                out.append(effect)
        if self._list:
            assert isinstance(value, tuple)
            for item in value:
                if self._searches and isinstance(item, bytes) and len(item) <= _WORD_BYTES:
                    out += self._word(item)
                else:
                    self._scalar(item, out)
        else:
            self._scalar(value, out)

    def _search(self, patterns: list[bytes], atom: int) -> None:
        for pattern in patterns:
            self._patterns.add(pattern, atom)
        self._used.add(self._patterns)

    def _word(self, word: bytes) -> list[Effect]:
        found = self._words.get(word)
        if found is None:
            if len(self._words) >= _WORDS:
                self._words.clear()
            found = self._words[word] = []
            self._scalar(word, found)
        return found

    def _scalar(self, value: object, out: list[Effect]) -> None:
        if not isinstance(value, bytes):
            found = self._effects.get(value)
            if found is not None:
                out.append(found)
            return
        if self._fold:
            value = value.lower()
        found = self._effects.get(value)
        if found is not None:
            out.append(found)
        for search in self._searches:
            search(value, out)
