"""The plan as bytes, and back. It comes from policyd, which is less privileged than who takes it: nothing is taken on trust.

What decode lets through can make the kernel pass too much or too little, which is policyd's own loss, and nothing else: every
index is inside its table, and every table is bounded.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgpack

from execray.errors import PeerError
from execray.gate.hashes import MAX_SUFFIX
from execray.gate.plan import (
    ALL_BITS,
    CELL_SLOTS,
    MAX_BITS,
    MAX_BOUNDS,
    MAX_CODES,
    MAX_KEYS,
    MAX_MASKS,
    MAX_NUMBERS,
    MAX_ROWS,
    MAX_SLOTS,
    MAX_SUFFIXES,
    MAX_WORDS,
    CodeTest,
    GatePlan,
    Input,
    NumberKind,
    NumberTest,
)

T = TypeVar("T")
V = TypeVar("V")

FORMAT: Final = 2
MAX_PLAN_BYTES: Final = 1 << 20
_WORD_BYTES: Final = 8
_U64: Final = 1 << 64
_I63: Final = 1 << 63


def encode_plan(plan: GatePlan) -> bytes:
    """Returns the plan's bytes. Raises ValueError where they are more than MAX_PLAN_BYTES."""
    body = [
        FORMAT,
        [_packed(row) for row in plan.rows[2:]],
        [
            [*_scalars(code), [[test.input, test.kind, test.rows, *test.bounds] for test in code.numbers]]
            for code in plan.codes
        ],
        sorted(plan.open_codes),
        [item for pair in sorted(plan.keys.items()) for item in pair],
        plan.suffixes,
        plan.first,
        plan.named,
        [item for pair in sorted(plan.slots.items()) for item in pair],
        [item for slot in sorted(plan.windows) for item in (slot, plan.windows[slot])],
    ]
    raw: bytes = msgpack.packb(body, use_bin_type=True)
    if len(raw) > MAX_PLAN_BYTES:
        raise ValueError(f"a plan of {len(raw)} bytes is over {MAX_PLAN_BYTES}")
    return raw


def digest_of(raw: bytes) -> str:
    """Returns what a plan's bytes are called in heartbeats."""
    return hashlib.sha256(raw).hexdigest()[:16]


def decode_plan(raw: bytes) -> GatePlan:
    """Returns the plan of these bytes. Raises PeerError for anything that encode_plan would not have made of a sound plan."""
    if len(raw) > MAX_PLAN_BYTES:
        raise PeerError(f"a plan of {len(raw)} bytes is over {MAX_PLAN_BYTES}")
    try:
        body = msgpack.unpackb(raw, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise PeerError(f"the plan is not msgpack: {type(error).__name__}") from error
    if not isinstance(body, tuple) or len(body) != _LENGTH or body[0] != FORMAT:
        raise PeerError("the plan is of another format")
    _, rows, codes, open_codes, keys, suffixes, first, named, slots, windows = body
    _need(isinstance(rows, tuple) and len(rows) <= MAX_ROWS - 2, "rows")
    all_rows = (0, ALL_BITS, *map(_unpacked, rows))
    count = len(all_rows)
    row = _below(count, "a row's number")
    return GatePlan(
        codes=_codes(codes, count),
        open_codes=frozenset(_all(open_codes, _below(MAX_CODES, "a code"), MAX_CODES)),
        rows=all_rows,
        keys=_pairs(keys, _below(_U64, "a key"), row, MAX_KEYS),
        suffixes=_ascending(_all(suffixes, _between(1, MAX_SUFFIX + 1, "a suffix"), MAX_SUFFIXES), "suffixes"),
        first=row(first),
        named=row(named),
        slots=_slots(slots, windows := _pairs(windows, _slot, _window, MAX_SLOTS)),
        windows=windows,
    )


_LENGTH: Final = 10


def _slot(value: object) -> int:
    slot = _between(1, MAX_SLOTS, "a slot")(value)
    _need(slot != CELL_SLOTS, "slots")
    return slot


def _window(value: object) -> int | None:
    return None if value is None else _below(_I63, "a window")(value)


def _slots(items: object, windows: Mapping[int, int | None]) -> dict[int, int]:
    found = _pairs(items, _below(MAX_BITS, "a bit"), _slot, MAX_BITS)
    _need(windows.keys() >= set(found.values()), "slots")
    return found


def _scalars(code: CodeTest) -> list[int]:
    rows = (code.all, code.path_free, code.path_nameless, code.path_missing, code.comm_free)
    return [code.code, code.first_word, code.end_word, *rows]


def _packed(row: int) -> list[Any]:
    """The words of a row from the first to the last that isn't zero, and where the first one stands."""
    first = ((row & -row).bit_length() - 1) // 64 if row else 0
    words = row >> 64 * first
    size = -(-words.bit_length() // 64) * _WORD_BYTES
    return [first, words.to_bytes(size, "little")]


def _unpacked(item: object) -> int:
    match item:
        case (int(first), bytes(words)) if type(first) is int and 0 <= first <= MAX_WORDS:
            _need(len(words) % _WORD_BYTES == 0 and first + len(words) // _WORD_BYTES <= MAX_WORDS, "row")
            return int.from_bytes(words, "little") << 64 * first
    raise PeerError("the plan has a malformed row")


def _codes(codes: object, rows: int) -> tuple[CodeTest, ...]:
    found = tuple(_all(codes, lambda item: _code(item, rows), MAX_CODES))
    _need(len({code.code for code in found}) == len(found), "codes")
    return found


def _code(item: object, rows: int) -> CodeTest:
    _need(isinstance(item, tuple) and len(item) == _CODE_LENGTH, "code")
    assert isinstance(item, tuple)
    row = _below(rows, "a row's number")
    code, first, end, *parts, numbers = item
    whole, free, nameless, missing, comm_free = map(row, parts)
    first, end = _below(MAX_WORDS, "a word")(first), _between(1, MAX_WORDS + 1, "a word")(end)
    _need(first < end, "words")
    tests = tuple(_all(numbers, lambda test: _number(test, rows), MAX_NUMBERS))
    code = _below(MAX_CODES, "a code")(code)
    return CodeTest(code, first, end, whole, free, nameless, missing, comm_free, tests)


_CODE_LENGTH: Final = 9


def _number(item: object, rows: int) -> NumberTest:
    _need(isinstance(item, tuple) and 3 < len(item) <= 3 + MAX_BOUNDS, "test of a number")
    assert isinstance(item, tuple)
    which, kind, first, *bounds = item
    known = which in _INPUTS and kind in _KINDS
    _need(type(which) is int and type(kind) is int and known, "test of a number")
    limit = _between(-_I63, _I63, "a bound") if kind == NumberKind.RANGES else _between(1, _U64, "a mask")
    values = tuple(map(limit, bounds))
    if kind == NumberKind.RANGES:
        _ascending(list(values), "bounds")
    _need(kind == NumberKind.RANGES or len(values) <= MAX_MASKS, "masks")
    test = NumberTest(Input(which), NumberKind(kind), values, _below(rows, "a row's number")(first))
    _need(test.rows + test.row_count <= rows, "test of a number")
    return test


_INPUTS: Final = frozenset(map(int, Input))
_KINDS: Final = frozenset(map(int, NumberKind))


def _below(end: int, what: str) -> Callable[[object], int]:
    return _between(0, end, what)


def _between(first: int, end: int, what: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not first <= value < end:
            raise PeerError(f"the plan has {what} that is out of range")
        return value

    return check


def _all(items: object, each: Callable[[object], T], most: int) -> list[T]:
    _need(isinstance(items, tuple) and len(items) <= most, "table")
    assert isinstance(items, tuple)
    return [each(item) for item in items]


def _pairs(items: object, key: Callable[[object], T], value: Callable[[object], V], most: int) -> dict[T, V]:
    _need(isinstance(items, tuple) and len(items) <= 2 * most and len(items) % 2 == 0, "table")
    assert isinstance(items, tuple)
    return {key(one): value(other) for one, other in zip(items[::2], items[1::2], strict=True)}


def _ascending(values: list[int], what: str) -> tuple[int, ...]:
    _need(all(one < other for one, other in itertools.pairwise(values)), what)
    return tuple(values)


def _need(well: bool, what: str) -> None:
    if not well:
        raise PeerError(f"the plan has malformed {what}")
