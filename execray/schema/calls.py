"""System calls, one a line: `NAME NUMBER NUMBER32 WORD...`.

    unlinkat  263 301  dir name directory&512
    ftruncate  77  93  fd len:q

NUMBER is that of the 64-bit entry point, NUMBER32 those of the 32-bit one on x86, separated by commas; `-` where there is none.
`x32=N` is the number that the x32 ABI has of its own, `socketcall=N,M` what a 32-bit caller may give to socketcall instead,
`uring=N` the operations of an io_uring that do the same.

Words stand for the arguments, in order:

- `fd`: a descriptor; what it refers to is the event's `path` and `file.id`, and itself its `fd` where there is such a field
- `dir`, `name`: a directory's descriptor, and a name that begins there; a name without one begins in the working directory.
  `name~`: a symbolic link at its end is followed. `dir2`, `name2`: the same once more, for `newpath`
- `$field`: text; two in one call at most, and none beside `name2`
- `field`: a signed 32-bit number. `field:u` is unsigned, `:q` has 64 bits, `:w` stands in two 32-bit arguments, `:m` is unsigned,
  and missing where it is -1, `:h` the same of 16 bits, `:l` of 64
- `field&MASK`: only those bits; `field?MASK`: a call that has none of those bits isn't the event
- `_`: nobody's business; `_?=A,B`: a call where it is neither of these two isn't the event

and these are no arguments: `=fd`, the result is such a descriptor; `=root`, `path` is the root that the caller has afterwards;
`field=N`, a constant; `field=none`, missing; `field=N&MASK`, bits of the Nth argument. A field `call` is the call's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from execray.schema.records import compared

#: A call that has no number of its own among the 64-bit ones is named by this and its first 32-bit one (`er_shape.nr`).
ONLY_32BIT: Final = 1024
ONE_OF: Final = 8  # in a position of `need`
RESULT: Final = 7  # where a call's values hold its result; its arguments are 1 to 6
_WORD: Final = re.compile(r"(\$?)([a-z_][a-z_0-9.]*)(?::([uqwmhl]))?(?:&(\d+))?(?:\?(\d+))?")
_PLACES: Final = {
    "dir": ("dir", 0),
    "dir2": ("dir", 1),
    "name": ("name", 0),
    "name~": ("name", 0),
    "name2": ("name", 1),
}


@compared(frozen=True, slots=True)
class Value:
    """Where a field's number comes from."""

    field: str
    at: int = 0  # 1 to 6, or RESULT; 0: a constant
    form: str = "i"  # i, u, q, w, m, h, l: as above
    mask: int = 0  # 0: all bits
    constant: int | None = None


@dataclass(slots=True)
class Call:
    """One system call: its numbers, and what its arguments are. Positions are 1 to 6, RESULT, or 0 for none."""

    name: str
    native: int | None
    compat: tuple[int, ...]
    x32: int | None = None
    socketcall: tuple[int, ...] = ()
    uring: tuple[int, ...] = ()
    fd: int = 0
    dirs: list[int] = field(default_factory=lambda: [0, 0])
    names: list[int] = field(default_factory=lambda: [0, 0])
    follows: bool = False  # a symbolic link at the end of the first name is followed
    texts: list[tuple[str, int]] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    need: tuple[int, int] = (0, 0)  # position, bits: one of them must be set; with ONE_OF, two numbers of 16 bits

    @property
    def number(self) -> int:
        """What a record calls it (`er_shape.nr`): the 64-bit number, whatever ABI it came through."""
        return self.native if self.native is not None else ONLY_32BIT + self.compat[0]


def places_of(call: Call) -> Iterator[int]:
    """Yields where in the kernel's table a call stands: once for each entry point."""
    # Here, since short commands that only read the catalogue would wait for it.
    from execray.schema.layout import (  # noqa: PLC0415  # see above
        ER_SHAPES_COMPAT,
        ER_SHAPES_NATIVE,
        ER_SHAPES_SOCKETCALL,
        ER_SHAPES_URING,
    )

    if call.native is not None:
        yield ER_SHAPES_NATIVE + call.native
    if call.x32 is not None:
        yield ER_SHAPES_NATIVE + call.x32
    for number in call.compat:
        yield ER_SHAPES_COMPAT + number
    for number in call.socketcall:
        yield ER_SHAPES_SOCKETCALL + number
    for number in call.uring:
        yield ER_SHAPES_URING + number


def parse_call(line: str) -> Call:
    """Returns what a line says. Raises ValueError."""
    name, native, compat, *words = line.split()
    call = Call(
        name,
        None if native == "-" else int(native),
        () if compat == "-" else tuple(int(number) for number in compat.split(",")),
    )
    at = 1
    for word in words:
        if "=" in word and not word.startswith("_?="):
            _no_argument(call, word)
        else:
            at += _argument(call, word, at)
    if (
        at > RESULT
        or len(call.texts) > 2
        or (call.texts and call.names[1])
        or not (call.native or call.compat or call.number == 0)
    ):
        raise ValueError(f"not a call: {line}")
    return call


def _no_argument(call: Call, word: str) -> None:
    left, _, right = word.partition("=")
    if word == "=fd":
        call.fd = RESULT
    elif word == "=root":
        call.dirs[0] = RESULT
    elif left == "x32":
        call.x32 = int(right)
    elif left in ("socketcall", "uring"):
        setattr(call, left, tuple(int(number) for number in right.split(",")))
    elif right == "none":
        call.values.append(Value(left))
    elif "&" in right:
        at, _, mask = right.partition("&")
        call.values.append(Value(left, int(at), mask=int(mask)))
    else:
        call.values.append(Value(left, constant=int(right)))


def _argument(call: Call, word: str, at: int) -> int:
    """Notes what an argument is; returns how many it takes."""
    if word == "_":
        return 1
    if word.startswith("_?="):
        first, _, second = word[3:].partition(",")
        call.need = (at | ONE_OF, int(first) | int(second) << 16)
        return 1
    if word in _PLACES:
        kind, which = _PLACES[word]
        (call.dirs if kind == "dir" else call.names)[which] = at
        call.follows |= word == "name~"
        return 1
    found = _WORD.fullmatch(word)
    if found is None:
        raise ValueError(f"not a word: {word}")
    text, name, form, mask, need = found.groups()
    if text:
        call.texts.append((name, at))
        return 1
    if name == "fd":
        call.fd = at
    if need:
        call.need = (at, int(need))
    call.values.append(Value(name, at, form or "i", int(mask or 0)))
    return 2 if form == "w" else 1
