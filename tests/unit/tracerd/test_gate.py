"""tracerd/gate.py: a plan as the kernel's table."""

from __future__ import annotations

import dataclasses
import struct
from random import Random
from typing import Any

from execray.gate.memory import failed_waits_for, waits_for
from execray.gate.plan import ALL_BITS, ROW_ALL, CodeTest, GatePlan, Input, NumberKind, NumberTest
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import (
    ER_GATE_BUCKET,
    ER_GATE_OWN,
    ER_GATE_WAITS,
    GATE_AT,
    GATE_CODE,
    GATE_WORK_AT,
    GATE_WORK_BYTES,
    GateCode,
)
from tests.support.gates import random_plan
from tracerd.gate import GateCounts
from tracerd.gate_table import table_of


def member(table: bytes, name: str) -> bytes:
    at, size = GATE_AT[name]
    return table[at : at + size]


def test_every_key_is_found_where_the_kernel_looks() -> None:
    keys = {Random(n).getrandbits(64): n % 7 for n in range(8192)}
    table = table_of(GatePlan(rows=(0, ALL_BITS, *range(5)), keys=keys), 1, 0)
    stored = struct.unpack("<8192Q", member(table, "key"))
    rows = struct.unpack("<8192H", member(table, "key_row"))
    begins = struct.unpack_from("<4097H", member(table, "bucket"))
    bloom = struct.unpack("<1024Q", member(table, "bloom"))
    assert member(table, "open") == bytes(8)
    for key, row in keys.items():
        bucket = key >> 52
        assert begins[bucket + 1] - begins[bucket] <= ER_GATE_BUCKET
        assert rows[stored.index(key, begins[bucket], begins[bucket + 1])] == row
        bits = 1 << (key & 63) | 1 << (key >> 6 & 63)
        assert bloom[key >> 54] & bits == bits


def test_keys_that_crowd_into_one_bucket_open_everything() -> None:
    keys = {(0xABC << 52) + n: 2 for n in range(ER_GATE_BUCKET + 1)}
    table = table_of(GatePlan(rows=(0, ALL_BITS, 1), keys=keys), 1, 0)
    assert member(table, "open") == b"\xff" * 8
    assert not any(member(table, "bloom"))


def test_rows_are_written_as_words() -> None:
    plan = random_plan(Random(5))
    table = table_of(plan, 7, 0)
    first = GATE_AT["row"][0]
    assert len(table) == first + 512 * len(plan.rows)
    for index, row in enumerate(plan.rows):
        assert int.from_bytes(table[first + 512 * index :][:512], "little") == row
    assert struct.unpack("<Q", member(table, "generation")) == (7,)


def test_counts_of_all_processors_and_hooks_are_added_up() -> None:
    code = EVENT_BY_NAME["open"].code
    one = bytearray(GATE_WORK_BYTES)
    struct.pack_into("<Q", one, GATE_WORK_AT["passed"][0] + 8 * code, 3)
    struct.pack_into("<Q", one, GATE_WORK_AT["dropped"][0] + 8 * code, 5)
    struct.pack_into("<Q", one, GATE_WORK_AT["deep"][0], 1)
    counts = GateCounts.of([bytes(one) * 2, bytes(one)])
    assert (counts.passed, counts.dropped, counts.deep) == ({"open": 9}, {"open": 15}, 3)


def waiting(**more: Any) -> tuple[int, ...]:
    """The slots of a code with bits 0 to 2."""
    test = CodeTest(5, 0, 1, 2, 2, 2, 2, ROW_ALL)
    plan = GatePlan((test,), rows=(0, ALL_BITS, 0b111, 0b100), first=0, slots={0: 9, 1: 7, 2: 7}, windows={7: 1, 9: 1})
    return waits_for(dataclasses.replace(plan, **more), test)


def test_a_kind_of_event_waits_where_each_of_its_bits_does() -> None:
    assert waiting() == (7, 9)
    assert waiting(first=3) == ()  # one of them is awaited always
    assert waiting(slots={0: 9, 1: 7}) == ()  # one has no slot
    assert waiting(open_codes=frozenset({5})) == ()
    many = CodeTest(5, 0, 1, 2, 2, 2, 2, ROW_ALL)
    slots = {bit: bit + 1 for bit in range(ER_GATE_WAITS + 1)}
    plan = GatePlan((many,), rows=(0, ALL_BITS, 0b1111), first=0, slots=slots)
    assert waits_for(plan, many) == (0,)
    assert waits_for(dataclasses.replace(plan, slots={**slots, 0: ER_GATE_OWN + 1}), many) == (0, ER_GATE_OWN)


def failed_waiting(bounds: tuple[int, ...], *rows: int, **more: Any) -> tuple[int, ...] | None:
    """The slots that failed calls wait for, of a code with bits 0 to 2, of which these rows leave some by the call's result."""
    number = NumberTest(Input.RET, NumberKind.RANGES, bounds, 3)
    test = CodeTest(5, 0, 1, 2, 2, 2, 2, ROW_ALL, (number,))
    first, slots = 3 + len(rows), {0: 9, 1: 7}
    plan = GatePlan((test,), rows=(0, ALL_BITS, 0b111, *rows, 0b100), first=first, slots=slots, windows={7: 1, 9: 1})
    return failed_waits_for(dataclasses.replace(plan, **more), test)


def test_a_call_that_failed_waits_where_each_bit_does_that_it_can_meet() -> None:
    assert failed_waiting((0,), 0b011, 0b111) == (7, 9)
    assert failed_waiting((0,), 0b001, 0b111) == (9,)
    assert failed_waiting((0,), 0, 0b111) == ()  # it can meet nothing
    assert failed_waiting((0,), 0b111, 0b111) is None  # bit 2 is awaited always
    # each result from -4095 to -1 counts, and no other
    assert failed_waiting((-4095,), 0b111, 0b001) == (9,)
    assert failed_waiting((-4094,), 0b111, 0b001) is None
    assert failed_waiting((-1,), 0b001, 0b111) is None
    assert failed_waiting((-2, -1), 0, 0b010, 0b001) == (7, 9)
    assert failed_waiting((0,), 0b001, 0b111, open_codes=frozenset({5})) is None
    untested = CodeTest(5, 0, 1, 2, 2, 2, 2, ROW_ALL)
    assert failed_waits_for(GatePlan((untested,), rows=(0, ALL_BITS, 0b111), first=0), untested) is None


def test_what_a_failed_call_waits_for_stands_behind_what_all_calls_do() -> None:
    number = NumberTest(Input.RET, NumberKind.RANGES, (0,), 2)
    tests = tuple(CodeTest(code, 0, 1, 3, 3, 3, 3, ROW_ALL, (number,)) for code in (5, EVENT_BY_NAME["setuid"].code))
    plan = GatePlan(tests, rows=(0, ALL_BITS, 0b01, 0b11, 0b10), first=4, slots={0: 9, 1: 7}, windows={7: 1, 9: 1})
    codes = member(table_of(plan, 1, 0), "code")
    opened, followed = (GateCode._make(GATE_CODE.unpack_from(codes, test.code * GATE_CODE.size)) for test in tests)
    assert (opened.waits, opened.failed, opened.slot) == (0, 2, struct.pack("<6H", 0, 0, 0, 9, 0, 0))
    assert followed.failed == 0  # each of these is looked at, whatever becomes of it
