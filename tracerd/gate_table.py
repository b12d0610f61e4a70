"""The gate's plan as the kernel reads it: `struct er_gate`."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from typing import Final

from execray.gate.memory import FOR_EVER, failed_waits_for, until_ns, waits_for, with_any, with_longest
from execray.gate.plan import ROW_ALL, CodeTest, GatePlan, Input, NumberTest
from execray.gate.verdict import words
from execray.schema.layout import (
    ER_GATE_BLOOM,
    ER_GATE_BUCKET,
    ER_GATE_BUCKETS,
    ER_GATE_CODES,
    ER_GATE_INPUT,
    ER_GATE_NUMBERS,
    ER_GATE_SLOTS,
    ER_GATE_WAITS,
    ER_GATE_WORDS,
    GATE_AT,
    GATE_CODE,
    GATE_NUMBER,
    GATE_ROW,
)
from tracerd.shapes import FOLLOWED

_EVERY_CODE: Final = (1 << ER_GATE_CODES) - 1
_COMM: Final = 1 << ER_GATE_INPUT["ER_GATE_COMM"]
_FILE: Final = 1 << ER_GATE_INPUT["ER_GATE_FILE"]
_ACTOR: Final = frozenset({Input.UID, Input.EUID})
_BUCKET_SHIFT: Final = 64 - (ER_GATE_BUCKETS - 1).bit_length()
_BLOOM_SHIFT: Final = 64 - (ER_GATE_BLOOM - 1).bit_length()


def table_of(plan: GatePlan, generation: int, now_ns: int) -> bytes:
    """Returns the plan as `struct er_gate`, up to the last row that it has.

    now_ns: before when all that can have begun is taken to have begun now.
    """
    rows = GATE_AT["row"][0]
    out = bytearray(rows + len(plan.rows) * GATE_ROW.size)
    _put(out, "generation", struct.pack("<Q", generation))
    keys = sorted(plan.keys.items())
    buckets = Counter(key >> _BUCKET_SHIFT for key, _ in keys)
    # keys that crowd into one bucket are no accident: a plan that can't be looked up tests nothing
    crowded = any(count > ER_GATE_BUCKET for count in buckets.values())
    open_codes = _EVERY_CODE if crowded else sum(1 << code for code in plan.open_codes)
    _put(out, "open", struct.pack("<Q", open_codes))
    _put(out, "suffix", bytes(plan.suffixes))
    if not crowded:
        _put_keys(out, keys, buckets)
    _put_slots(out, plan, now_ns)
    named, first = plan.rows[plan.named], plan.rows[plan.first]
    begins = sum(1 << bit for bit in plan.slots if first >> bit & 1)
    for code in plan.codes:
        at, mine = GATE_AT["code"][0] + code.code * GATE_CODE.size, words(code)
        asks = _FILE if named & mine else 0
        # what a call that is followed leaves behind is kept although its event is dropped, so each of these is looked at
        failed = None if code.code in FOLLOWED else failed_waits_for(plan, code)
        waits = () if open_codes >> code.code & 1 else waits_for(plan, code)
        out[at : at + GATE_CODE.size] = _code(code, asks, begins & mine != 0, waits, failed)
    _put(out, "free_words", struct.pack(f"<{len(plan.rows)}Q", *_free_words(plan)))
    for index, row in enumerate(plan.rows):
        at = rows + index * GATE_ROW.size
        out[at : at + GATE_ROW.size] = row.to_bytes(GATE_ROW.size, "little")
    return bytes(out)


def _free_words(plan: GatePlan) -> list[int]:
    """Returns of each row in which words it has bits that ask nothing of the path: what numbers leave of most events."""
    found = [(1 << ER_GATE_WORDS) - 1] * len(plan.rows)
    chosen: dict[int, int] = {}  # row -> all that asks nothing of the path, of the events whose numbers choose it
    for code in plan.codes:
        for number in code.numbers:
            for row in range(number.rows, number.rows + number.row_count):
                chosen[row] = chosen.get(row, 0) | plan.rows[code.path_free]
    chosen.pop(ROW_ALL, None)
    for row, free in chosen.items():
        left = plan.rows[row] & free
        found[row] = sum(1 << word for word in range(ER_GATE_WORDS) if left >> 64 * word & (1 << 64) - 1)
    return found


def _put(out: bytearray, member: str, data: bytes) -> None:
    at, size = GATE_AT[member]
    assert len(data) <= size
    out[at : at + len(data)] = data


def _put_keys(out: bytearray, keys: list[tuple[int, int]], buckets: Mapping[int, int]) -> None:
    bloom = [0] * ER_GATE_BLOOM
    for key, _ in keys:
        bloom[key >> _BLOOM_SHIFT] |= 1 << (key & 63) | 1 << (key >> 6 & 63)
    begins, at = [], 0
    for bucket in range(ER_GATE_BUCKETS):
        begins.append(at)
        at += buckets.get(bucket, 0)
    begins.append(at)
    _put(out, "bloom", struct.pack(f"<{ER_GATE_BLOOM}Q", *bloom))
    _put(out, "bucket", struct.pack(f"<{len(begins)}H", *begins))
    _put(out, "key", struct.pack(f"<{len(keys)}Q", *(key for key, _ in keys)))
    _put(out, "key_row", struct.pack(f"<{len(keys)}H", *(row for _, row in keys)))


def _put_slots(out: bytearray, plan: GatePlan, now_ns: int) -> None:
    _put(out, "first", struct.pack("<I", plan.first))
    _put(out, "named", struct.pack("<I", plan.named))
    windows = [0] * ER_GATE_SLOTS
    settled = every_slot({slot: until_ns(window, now_ns) for slot, window in plan.windows.items()})
    for slot, window in with_longest(plan.windows).items():
        windows[slot] = FOR_EVER if window is None else window
    _put(out, "window_ns", struct.pack(f"<{ER_GATE_SLOTS}Q", *windows))
    _put(out, "settled_ns", struct.pack(f"<{ER_GATE_SLOTS}Q", *settled))
    for bit, slot in plan.slots.items():
        struct.pack_into("<H", out, GATE_AT["slot"][0] + 2 * bit, slot)


def every_slot(ends: Mapping[int, int]) -> list[int]:
    """Returns an end for each slot, and for the places of all slots of a kind the latest; 0: it hasn't begun."""
    known = with_any(ends)
    return [known.get(slot, 0) for slot in range(ER_GATE_SLOTS)]


def _code(code: CodeTest, asks: int, begins: bool, waits: tuple[int, ...], failed: tuple[int, ...] | None) -> bytes:
    numbers = b"".join(map(_number, code.numbers)).ljust(ER_GATE_NUMBERS * GATE_NUMBER.size, b"\0")
    asks |= sum(1 << which for which in {number.input for number in code.numbers} & _ACTOR)
    if code.comm_free != ROW_ALL:
        asks |= _COMM
    slots = b"".join(
        struct.pack(f"<{len(some)}H", *some).ljust(2 * ER_GATE_WAITS, b"\0") for some in (waits, failed or ())
    )
    rows = (code.all, code.path_free, code.path_nameless, code.path_missing, code.comm_free)
    counts = (len(waits), 0 if failed is None else 1 + len(failed))
    return GATE_CODE.pack(
        code.first_word, code.end_word, *rows, len(code.numbers), asks, begins, *counts, slots, numbers
    )


def _number(number: NumberTest) -> bytes:
    bounds = b"".join((bound & (1 << 64) - 1).to_bytes(8, "little") for bound in number.bounds)
    return GATE_NUMBER.pack(number.input, number.kind, number.rows, len(number.bounds), bounds)
