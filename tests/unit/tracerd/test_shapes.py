"""The kernel's table of calls: what is armed for what is wanted."""

from __future__ import annotations

import mmap
import subprocess
import sys
from typing import Any, ClassVar, SupportsIndex, cast

import pytest

from execray.schema.calls import parse_call
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import ER_RESTS, ER_SHAPES_COMPAT, ER_SHAPES_SOCKETCALL, ER_SHAPES_URING, SHAPE, Shape
from execray.schema.numbers import MAX_NUMBER
from tracerd.heartbeat import _PROBES
from tracerd.shapes import FOLLOWED, PROBED_BY_SUCCESS, TABLE_BYTES, table_of, write_table

_MAKE = "import ctypes\nmake = ctypes.CDLL(None).syscall"


def armed(*names: str, numbers: tuple[int, ...] = ()) -> dict[int, Shape]:
    table = table_of([EVENT_BY_NAME[name].code for name in names], numbers)
    shapes = (Shape._make(SHAPE.unpack_from(table, at)) for at in range(0, TABLE_BYTES, SHAPE.size))
    return {place: shape for place, shape in enumerate(shapes) if shape.event}


def code(name: str) -> int:
    return EVENT_BY_NAME[name].code


def test_only_what_is_wanted_is_armed_beside_what_is_always_followed() -> None:
    ids = (105, 113, 117, 122, 106, 114, 119, 123, 116)  # set*uid, set*gid, setgroups
    narrow = (23, 213, 70, 203, 164, 208, 138, 215, 46, 214, 71, 204, 170, 210, 139, 216, 81, 206, 185, 346, 310)
    assert set(armed()) == {*ids, 126, 308, 272, *(ER_SHAPES_COMPAT + n for n in narrow)}  # capset, setns, unshare
    more = {place: shape for place, shape in armed("unlink").items() if shape.event == code("unlink")}
    assert set(more) == {
        *(87, 84, 263),
        *(ER_SHAPES_COMPAT + n for n in (10, 40, 301)),
        ER_SHAPES_URING + 36,
    }
    assert (more[263].dir, more[263].name, more[263].nr) == (1, 2, 263) and more[ER_SHAPES_COMPAT + 301] == more[263]


def test_a_call_that_is_several_events_has_them_in_order_and_one_shape() -> None:
    alone, both = armed("sendto")[44], armed("sendto", "write")[44]
    assert (alone.event, alone.also, alone.fd) == (code("sendto"), 0, 1)
    assert (both.event, both.also, both.third, both.fd) == (code("write"), code("sendto"), 0, 1)
    three = armed("sendto", "write", "syscall", numbers=(44,))[44]
    assert (three.event, three.also, three.third) == (code("write"), code("sendto"), code("syscall"))


def test_a_call_by_one_of_its_arguments_has_it_in_its_shape() -> None:
    copies = armed("dup")[72]
    assert (copies.need, copies.bits) == (2 | 8, 1030 << 16)
    assert armed("mprotect")[10].need == 3


def test_what_is_followed_for_its_own_sake_is_followed_in_every_process() -> None:
    table = table_of([code("setuid"), code("chmod")], armed=[code("setuid"), code("chmod")])
    assert Shape._make(SHAPE.unpack_from(table, 105 * SHAPE.size)).armed == 0
    assert Shape._make(SHAPE.unpack_from(table, 90 * SHAPE.size)).armed


def test_socketcall_is_armed_where_one_of_its_calls_is() -> None:
    assert ER_SHAPES_COMPAT + 102 not in armed("open")
    shapes = armed("connect")
    assert shapes[ER_SHAPES_COMPAT + 102].event and shapes[ER_SHAPES_SOCKETCALL + 3].nr == 42
    assert ER_SHAPES_SOCKETCALL + 1 not in shapes


def test_numbers_are_armed_in_both_numberings_and_impossible_ones_in_none() -> None:
    shapes = armed("syscall", numbers=(95, -1, MAX_NUMBER + 5, 1 << 40))
    mine = {place for place, shape in shapes.items() if shape.event == code("syscall")}
    assert mine == {95, ER_SHAPES_COMPAT + 60, MAX_NUMBER}
    assert not [s for s in armed(numbers=(95,)).values() if s.event == code("syscall")]


def test_an_event_wanted_from_armed_processes_only_says_so_in_every_call_that_it_is() -> None:
    table = table_of([code("write"), code("procmem"), code("sendto"), code("open")], armed=[code("write")])
    shapes = {at // SHAPE.size: Shape._make(SHAPE.unpack_from(table, at)) for at in range(0, TABLE_BYTES, SHAPE.size)}
    names = ("event", "also", "third")
    del shapes[ER_SHAPES_COMPAT + 102]  # socketcall: which call it is stands elsewhere
    for shape in shapes.values():
        mine = [getattr(shape, name) for name in names]
        expected = sum(1 << at for at, event in enumerate(mine) if event == code("write"))
        whole = bool(expected) and set(mine) == {code("write"), 0}
        assert shape.armed == expected | whole << 3
    assert shapes[1].armed and shapes[44].armed and not shapes[257].armed
    only = table_of([code("write")], armed=[code("write")])
    assert Shape._make(SHAPE.unpack_from(only, SHAPE.size)).armed == 0b1001


def resting(*names: str, waiting: str) -> dict[int, int]:
    table = table_of(map(code, names), resting=[code(waiting)])
    return {
        at // SHAPE.size: Shape._make(SHAPE.unpack_from(table, at)).rests for at in range(0, TABLE_BYTES, SHAPE.size)
    }


def test_a_call_rests_that_is_of_one_event_and_of_that_whatever_its_arguments() -> None:
    rests, alone = ER_RESTS["ER_RESTS"], ER_RESTS["ER_RESTS"] | ER_RESTS["ER_RESTS_ALONE"]
    assert {place: found for place, found in resting("chmod", waiting="chmod").items() if found} == {
        **dict.fromkeys((90, 91, 268), alone),  # what these are in the other numbering is nobody's business
        452: rests,
    }
    both = resting("write", "kill", "mkdir", waiting="write")
    assert both[1] == alone and not both[62]
    assert not any(resting("write", "procmem", waiting="procmem").values())  # most writes are none
    assert not any(resting("write", "procmem", waiting="write")[number] for number in (1, 20))  # two events
    assert resting("personality", waiting="personality")[135] == rests


def test_the_probe_of_an_event_that_may_rest_unseen_fails() -> None:
    """Whoever makes such a call isn't asked where it has succeeded."""
    probes = {name: call for name, call in _PROBES.items() if code(name) not in FOLLOWED | PROBED_BY_SUCCESS}
    made = subprocess.run(
        [sys.executable, "-c", f"{_MAKE}\nfor name, call in {probes!r}.items():\n    print(name, make(*call))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {name: int(result) for name, result in map(str.split, made.stdout.splitlines())} == dict.fromkeys(probes, -1)


def test_the_table_in_the_kernel_becomes_what_it_should_be() -> None:
    with mmap.mmap(-1, TABLE_BYTES) as view:
        for names in (["open", "write"], ["unlink"], []):
            table = table_of([code(name) for name in names])
            write_table(view, table)
            assert view[:] == table


class Watched(bytearray):
    """A table in which it is kept which shapes were switched off."""

    off: ClassVar[list[int]] = []

    def __setitem__(self, at: SupportsIndex | slice, value: Any) -> None:
        super().__setitem__(at, value)
        if isinstance(at, int) and not at % SHAPE.size and not value:
            self.off.append(at // SHAPE.size)


def test_a_shape_stays_on_where_only_whether_it_rests_changes() -> None:
    view = Watched(table_of([code("chmod")]))
    Watched.off.clear()
    write_table(cast("mmap.mmap", view), table_of([code("chmod")], resting=[code("chmod")]))
    assert bytes(view) == table_of([code("chmod")], resting=[code("chmod")]) and not Watched.off
    write_table(cast("mmap.mmap", view), table_of([code("chmod"), code("mkdir")]))
    assert {83, 258} <= set(Watched.off) and not {90, 91, 268} & set(Watched.off)
    write_table(cast("mmap.mmap", view), table_of([code("write")], resting=[code("write")]))
    write_table(cast("mmap.mmap", view), table_of([code("write"), code("procmem")], resting=[code("write")]))
    assert 1 in Watched.off  # it is two events now, and rests no longer


@pytest.mark.parametrize(
    "line",
    [
        "mkdir",
        "mkdir 83",
        "mkdir x 39 name",
        "mkdir 83 39 name !",
        "rename 82 38 name name2 $text",
        "x 1 2 a b c d e f g",
    ],
)
def test_a_line_that_says_nothing_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):
        parse_call(line)
