"""The kernel's table of system calls: which are wanted, and what their arguments are. From the lines of the catalogue."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from typing import Final

from execray.schema.calls import ONE_OF, Call, places_of
from execray.schema.catalog import EVENT_BY_NAME, EVENTS, FIRST_ADDED, FIRST_ADDED_NUMBER, added
from execray.schema.layout import (
    ER_ARMED_EVENT,
    ER_RESTS,
    ER_SHAPES,
    ER_SHAPES_COMPAT,
    ER_SHAPES_NATIVE,
    ER_SHAPES_SOCKETCALL,
    ER_SHAPES_URING,
    SHAPE,
    Shape,
)
from execray.schema.numbers import MAX_NUMBER, compat_numbers

TABLE_BYTES: Final = ER_SHAPES * SHAPE.size
_SOCKETCALL: Final = ER_SHAPES_COMPAT + 102
_EVENT, _ALSO, _THIRD, _WHOLE = (ER_ARMED_EVENT[f"ER_ARMED_{name}"] for name in ("EVENT", "ALSO", "THIRD", "WHOLE"))
_SYSCALL: Final = EVENT_BY_NAME["syscall"].code
#: Their probes succeed, so that it must be asked whose call it is: heartbeat.py.
PROBED_BY_SUCCESS: Final = frozenset(EVENT_BY_NAME[name].code for name in ("personality", "cred_change"))
_RESTS, _RESTS_ALONE = (ER_RESTS[name] for name in ("ER_RESTS", "ER_RESTS_ALONE"))
#: Of these there is none in many of the calls that could be one.
_PARTIAL: Final = frozenset(EVENT_BY_NAME[name].code for name in ("procmem", "procread", "create"))
_RESTS_AT: Final = struct.calcsize(SHAPE.format[: 1 + Shape._fields.index("rests")])
#: Followed also where nobody asks: what these leave behind is the next one's "before".
FOLLOWED: Final = frozenset(EVENT_BY_NAME[name].code for name in ("setuid", "setgid", "capset", "setns", "unshare"))


def table_of(
    codes: Iterable[int], numbers: Iterable[int] = (), armed: Iterable[int] = (), resting: Iterable[int] = ()
) -> bytes:
    """Returns the table for the events that are wanted. Raises ValueError where four of them are one call.

    numbers: of the calls that are the event `syscall`, in 64-bit numbering. What can be no call's is left out.
    armed: the events that are wanted from armed processes only. resting: those that may wait for others under the gate's plan.
    """
    wanted = frozenset(codes)
    shapes: dict[int, Shape] = {}
    for event in EVENTS:
        for call in event.system_calls if event.code in wanted | FOLLOWED and not event.handler else ():
            for place in places_of(call):
                shapes[place] = _with(shapes.get(place), _shape(kernel_number(event.code), call))
    if _SYSCALL in wanted:
        for number in {*(n for n in numbers if 0 <= n < MAX_NUMBER), MAX_NUMBER}:  # the last is nobody's: the probe
            shape = Shape(_SYSCALL, *(0,) * (len(Shape._fields) - 1))._replace(nr=number)
            for place in (ER_SHAPES_NATIVE + number, *(ER_SHAPES_COMPAT + n for n in compat_numbers(number))):
                shapes[place] = _with(shapes.get(place), shape)
    only = frozenset(kernel_number(code) for code in armed if code not in FOLLOWED)
    rest = frozenset(code for code in resting if code < FIRST_ADDED) - _PARTIAL
    shapes = {place: _armed(shape, only) for place, shape in shapes.items()}
    first = next((shapes[place] for place in shapes if ER_SHAPES_SOCKETCALL <= place < ER_SHAPES_URING), None)
    if first is not None:
        shapes[_SOCKETCALL] = Shape(first.event, *(0,) * (len(first) - 1))
    for place, shape in shapes.items():
        if place < ER_SHAPES_COMPAT and _is_plain(shape) and shape.event in rest:
            narrow = ER_SHAPES_COMPAT + place % (ER_SHAPES_SOCKETCALL - ER_SHAPES_COMPAT)
            alone = narrow not in shapes and shape.event not in PROBED_BY_SUCCESS
            shapes[place] = shape._replace(rests=_RESTS | _RESTS_ALONE if alone else _RESTS)
    out = bytearray(TABLE_BYTES)
    for place, shape in shapes.items():
        SHAPE.pack_into(out, place * SHAPE.size, *shape)
    return bytes(out)


def write_table(view: mmap.mmap, table: bytes) -> None:
    """Brings the kernel's table up to date. A shape is off while it changes, so that none is ever half another's."""
    for at in range(0, TABLE_BYTES, SHAPE.size):
        shape = table[at : at + SHAPE.size]
        known = view[at : at + SHAPE.size]
        if known[:_RESTS_AT] + known[_RESTS_AT + 1 :] == shape[:_RESTS_AT] + shape[_RESTS_AT + 1 :]:
            view[at + _RESTS_AT] = shape[_RESTS_AT]  # alone: no call is missed meanwhile
        else:
            view[at] = 0
            view[at + 1 : at + SHAPE.size] = shape[1:]
            view[at] = shape[0]


def kernel_number(code: int) -> int:
    """Returns what the kernel calls an event: its code, or of another's event its place behind all of ours."""
    return code if code < FIRST_ADDED else FIRST_ADDED_NUMBER + added().index(code)


def code_of(number: int) -> int:
    """Returns the code of the event that the kernel calls so, the number itself where there is none."""
    known = added()
    at = number - FIRST_ADDED_NUMBER
    return known[at] if 0 <= at < len(known) else number


def _shape(code: int, call: Call) -> Shape:
    text, text2 = (*(at for _, at in call.texts), 0, 0)[:2]
    need, bits = call.need
    return Shape(
        event=code,
        also=0,
        third=0,
        fd=call.fd,
        dir=call.dirs[0],
        name=call.names[0],
        dir2=call.dirs[1],
        name2=call.names[1],
        text=text,
        text2=text2,
        need=need,
        armed=0,
        nr=call.number,
        rests=0,
        bits=bits,
    )


def _with(known: Shape | None, more: Shape) -> Shape:
    """Returns the shape of a call that is one more event. All rows say the same of its arguments, or one says nothing."""
    if known is None:
        return more
    if known.third:
        raise ValueError(f"call {more.nr} is four events")
    merged = Shape(*(a or b for a, b in zip(known, more, strict=True)))._replace(also=known.also, third=known.third)
    return merged._replace(third=more.event) if known.also else merged._replace(also=more.event)


def _armed(shape: Shape, codes: frozenset[int]) -> Shape:
    """Returns the shape with what it says of the events that are wanted from armed processes only."""
    bits = ((shape.event, _EVENT), (shape.also, _ALSO), (shape.third, _THIRD))
    armed = sum(bit for code, bit in bits if code in codes)
    whole = bool(armed) and all(code in codes for code, _ in bits if code)
    return shape._replace(armed=armed | _WHOLE if whole else armed)


def _is_plain(shape: Shape) -> bool:
    """Returns whether a call is of one event and of no other, whatever its arguments are, in all processes."""
    return not shape.also and not shape.bits and not shape.need & ONE_OF and not shape.armed
