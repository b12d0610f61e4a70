"""How many rows of a slot are remembered, and which."""

from __future__ import annotations

from policyd.engine.rows import SlotRows, demand_of
from policyd.program import Op
from tests.support.programs import ref, test


def test_row_cache_keeps_what_is_asked_for_while_new_values_come() -> None:
    rows = SlotRows(ref("path").kind, lambda name: False, entries=10)
    rows.add(1, demand_of([test("path", Op.EQ, "/a")]))
    rows.build(1)
    for number in range(100):
        assert (rows.cache.get(b"/a") or rows.miss(b"/a")).bits
        assert not rows.miss(b"/%d" % number).bits
    assert (rows.stats.misses, rows.stats.clears) == (101, 24)
    assert len(rows) <= 10


def test_row_cache_is_bounded_in_bytes_too() -> None:
    rows = SlotRows(ref("path").kind, lambda name: False)
    rows.add(1, demand_of([test("path", Op.EQ, "/a")]))
    rows.build(1)
    for number in range(40):
        rows.miss(b"%d" % number + bytes(1 << 20))
    assert len(rows) <= 8
    assert rows.stats.clears >= 4


def test_a_form_of_a_value_is_looked_at_once_however_many_steps_ask_one_after_another() -> None:
    rows = SlotRows(ref("argv").kind, lambda name: name == "cmdline")
    count = 40
    for number in range(count):
        rows.add(1 << number, demand_of([test("cmdline", Op.MATCH, (f"needle{number}[a-z]+",))]))
    rows.add(1 << count, demand_of([test("cmdline", Op.MATCH, ("NEEDLE7X",), ignore_case=True)]))
    rows.build((1 << count + 1) - 1)
    value = (b"sh", b"-c", b"needle7x needle9y")
    met = [number for number in range(count) if rows.among(value, 1 << number)]
    assert (met, rows.stats.misses) == ([7, 9], 1)
    assert rows.among(value, 1 << count) and rows.stats.misses == 2, "another form of it"


def test_rows_that_are_known_in_part_are_bounded_too() -> None:
    for values, most in (((b"%d" % n for n in range(100)), 5), ((b"%d" % n + bytes(1 << 20) for n in range(20)), 4)):
        rows = SlotRows(ref("path").kind, lambda name: False, entries=10)
        rows.add(1, demand_of([test("path", Op.EQ, "/a")]))
        rows.add(2, demand_of([test("path", Op.EQ, "/b")]))
        rows.build(3)
        for value in values:
            assert rows.among(b"/a", 1) == 1 and not rows.among(value, 1)
            assert len(rows) <= most
        assert rows.among(b"/a", 3) == 1 and rows.among(b"/b", 2) == 2
        assert rows.stats.clears >= 4
