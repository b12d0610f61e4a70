"""The gate's plan on the wire: it survives, and nothing malformed gets through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.errors import PeerError
from execray.gate.encoding import MAX_PLAN_BYTES, decode_plan, encode_plan
from execray.gate.plan import (
    CELL_SLOTS,
    MAX_BITS,
    MAX_KEYS,
    MAX_ROWS,
    MAX_SLOTS,
    MAX_WORDS,
    CodeTest,
    GatePlan,
    Input,
    NumberKind,
    NumberTest,
)

PLAN = GatePlan(
    codes=(
        CodeTest(4, 0, 2, 2, 3, 0, 0, 1, (NumberTest(Input.RET, NumberKind.RANGES, (-(1 << 63), 0, 5), 2),)),
        CodeTest(5, 2, 3, 1, 1, 1, 1, 1, (NumberTest(Input.FLAGS, NumberKind.BITS, (1, 1 << 63), 2),)),
    ),
    open_codes=frozenset({1, 2, 3}),
    rows=(0, (1 << MAX_BITS) - 1, 5, 1 << 4095, 1 << 70 | 1, 0),
    keys={0: 2, (1 << 64) - 1: 3},
    suffixes=(3, 16),
    first=2,
    named=3,
    slots={0: 1, 4095: 511},
    windows={1: 5_000_000_000, 511: None},
)


def test_a_plan_survives_the_wire() -> None:
    assert decode_plan(encode_plan(PLAN)) == PLAN
    assert decode_plan(encode_plan(GatePlan())) == GatePlan()


@given(
    st.lists(st.integers(0, (1 << MAX_BITS) - 1) | st.integers(0, MAX_BITS - 1).map(lambda bit: 1 << bit), max_size=5)
)
def test_rows_survive_the_wire(rows: list[int]) -> None:
    plan = GatePlan(rows=(*GatePlan().rows, *rows))
    assert decode_plan(encode_plan(plan)).rows == plan.rows


def body() -> list[Any]:
    found: list[Any] = msgpack.unpackb(encode_plan(PLAN))
    return found


def put(*path: int, value: Any) -> Callable[[list[Any]], None]:
    def change(plan: Any) -> None:
        for at in path[:-1]:
            plan = plan[at]
        plan[path[-1]] = value

    return change


ROWS, CODES, OPEN, KEYS, SUFFIXES, FIRST, NAMED, SLOTS, WINDOWS = range(1, 10)


@pytest.mark.parametrize(
    "change",
    [
        put(0, value=1),
        put(ROWS, 0, value=[0, bytes(7)]),
        put(ROWS, 0, value=[MAX_WORDS, bytes(8)]),
        put(ROWS, 0, value=[-1, bytes(8)]),
        put(ROWS, 0, value=[True, bytes(8)]),
        put(ROWS, 0, value=[0, bytes(8 * MAX_WORDS + 8)]),
        put(ROWS, value=[[0, b""]] * (MAX_ROWS - 1)),
        put(CODES, 0, 0, value=64),
        put(CODES, 0, 0, value=5),  # twice
        put(CODES, 0, 1, value=2),  # no words
        put(CODES, 0, 2, value=MAX_WORDS + 1),
        *(put(CODES, 0, at, value=value) for at in range(3, 8) for value in (6, -1, "1", None)),
        put(CODES, 0, 8, value=[[1, 1, 2, 0]] * 7),
        put(CODES, 0, 8, 0, 0, value=99),
        put(CODES, 0, 8, 0, 0, value=True),
        put(CODES, 0, 8, 0, 1, value=3),
        put(CODES, 0, 8, 0, 2, value=3),  # its last row is outside
        put(CODES, 0, 8, 0, value=[1, 1, 2, 5, 5]),
        put(CODES, 0, 8, 0, value=[1, 1, 2, 1 << 63]),
        put(CODES, 0, 8, 0, value=[1, 1, 2]),
        put(CODES, 0, 8, 0, value=[1, 1, 0, *range(17)]),
        put(CODES, 1, 8, 0, value=[4, 2, 2, 0]),
        put(CODES, 1, 8, 0, value=[4, 2, 0, *range(1, 10)]),
        put(OPEN, value=[64]),
        put(KEYS, value=[1 << 63, 6]),
        put(KEYS, value=[5]),
        put(KEYS, value=[-5, 1]),
        put(KEYS, value=[1, 1] * (MAX_KEYS + 1)),
        put(NAMED, value=6),
        put(SUFFIXES, value=[0]),
        put(SUFFIXES, value=[17]),
        put(SUFFIXES, value=[3, 3]),
        put(SUFFIXES, value=list(range(1, 10))),
        put(FIRST, value=6),
        put(FIRST, value=1.0),
        put(SLOTS, value=[MAX_BITS, 1]),
        put(SLOTS, value=[1, 0]),
        put(SLOTS, value=[1, CELL_SLOTS]),
        put(WINDOWS, value=[1, 1, CELL_SLOTS, 1, 511, 1]),
        put(SLOTS, value=[1, MAX_SLOTS]),
        put(SLOTS, value=[1, 2]),  # has no window
        put(SLOTS, value=[1]),
        put(WINDOWS, value=[1, -1, 511, 1]),
        put(WINDOWS, value=[1, 1 << 63, 511, 1]),
        put(WINDOWS, value=[0, 1, 1, 1, 511, 1]),
        put(WINDOWS, value=[1, 1, 511, 1, MAX_SLOTS, 1]),
        lambda plan: plan.append(0),
        lambda plan: plan.pop(),
    ],
)
def test_a_malformed_plan_is_refused(change: Callable[[list[Any]], None]) -> None:
    plan = body()
    change(plan)
    with pytest.raises(PeerError):
        decode_plan(msgpack.packb(plan))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(PeerError):
        decode_plan(raw)


@given(st.data())
def test_a_damaged_plan_is_refused_or_within_its_bounds(data: st.DataObject) -> None:
    raw = bytearray(encode_plan(PLAN))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        plan = decode_plan(bytes(raw))
    except PeerError:
        return
    rows = [*plan.keys.values(), plan.first, plan.named]
    assert all(0 <= bit < MAX_BITS for bit in plan.slots) and all(0 < slot < MAX_SLOTS for slot in plan.windows)
    assert set(plan.slots.values()) <= plan.windows.keys()
    for code in plan.codes:
        rows += [code.all, code.path_free, code.path_nameless, code.path_missing, code.comm_free]
        rows += [test.rows + test.row_count - 1 for test in code.numbers]
        assert 0 <= code.first_word < code.end_word <= MAX_WORDS
    assert all(0 <= row < len(plan.rows) for row in rows)
    assert all(0 <= row < 1 << MAX_BITS for row in plan.rows)


def test_a_plan_that_is_too_large_is_not_sent_and_not_taken() -> None:
    plan = GatePlan(rows=(*GatePlan().rows, *([(1 << MAX_BITS) - 1] * 2100)))
    with pytest.raises(ValueError, match="over"):
        encode_plan(plan)
    with pytest.raises(PeerError, match="over"):
        decode_plan(bytes(MAX_PLAN_BYTES + 1))
