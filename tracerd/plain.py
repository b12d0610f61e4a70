"""Records of calls that need no decoder of their own: what the line of the catalogue says of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from execray.schema.calls import RESULT, Call, Value
from execray.schema.catalog import EVENTS, EventType, Field, Flag
from execray.schema.kinds import Kind
from execray.schema.layout import PLAIN, Plain
from execray.schema.row import FILE_NAMES_NAME
from tracerd.records import BadRecord, cut, file_id, kind_of_file, result, walked_path

#: The path of a descriptor or of where the first name begins; that name; the same of the second, or other texts.
Texts: TypeAlias = tuple[bytes, ...]
Getter: TypeAlias = Callable[[Plain, Texts], object]

_U32: Final = 0xFFFFFFFF
_UNREADABLE: Final = int(Flag.UNREADABLE)
_UNRESOLVED: Final = int(Flag.PATH_UNRESOLVED)


@lru_cache(maxsize=4096)
def joined(start: bytes, name: bytes, follows: bool) -> tuple[bytes | None, bool]:
    """Puts a name behind the directory where it begins; returns the path, and whether it is sure to be the kernel's.

    It is where no symbolic link can have been followed: the name is one component that the call doesn't follow.
    """
    if not start.startswith(b"/"):
        return None, True
    absolute = name.startswith(b"/")
    parts = start.split(b"/")[1:] if start != b"/" else []
    least = len(parts) if absolute else 0
    for part in name.split(b"/"):
        if part == b"..":
            if len(parts) > least:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    last = name[1:] if absolute else name
    sure = not follows and b"/" not in last and last not in (b".", b"..")
    return b"/" + b"/".join(parts), sure


class PlainDecoder:
    """One call's record to the slots of its event."""

    __slots__ = ("_call", "_getters", "_texts", "code", "names_at")

    def __init__(self, event: EventType, call: Call) -> None:
        """Raises ValueError where the event has a field that the call's line says nothing of."""
        self.code = event.code
        self._call = call
        self._getters = tuple(_getter(field, call) for field in event.slots)
        self._texts = tuple(index for index, field in enumerate(event.slots) if field.kind.is_text)
        #: Where the decoder puts what the file is called by policies; None where the event has no such slot.
        self.names_at = event.slot_of.get(FILE_NAMES_NAME)

    def decode(
        self, r: Plain, record: bytes, flags: int, text: Callable[[bytes | None], int | None]
    ) -> tuple[list[object], int]:
        """Returns the slots, and what flags there are besides. Raises BadRecord."""
        texts = cut(record, PLAIN.size, r.len0, r.len1, r.len2, r.len3)
        slots = [getter(r, texts) for getter in self._getters]
        for index in self._texts:
            value = slots[index]
            # what could not be read is unknown, and not empty
            slots[index] = None if value == b"" and flags & _UNREADABLE else text(value)  # type: ignore[arg-type]
        return slots, 0 if self._sure(texts) else _UNRESOLVED

    def _sure(self, texts: Texts) -> bool:
        first, second = self._call.names
        if self._call.dirs[0] == RESULT:
            return True
        return (not first or not texts[1] or joined(texts[0], texts[1], self._call.follows)[1]) and (
            not second or not texts[3] or joined(texts[2], texts[3], False)[1]
        )


def plain_decoders(codes: frozenset[int]) -> dict[int, dict[int, PlainDecoder]]:
    """Returns the decoders of some events, by event code and `er_plain.nr`."""
    return {
        event.code: {call.number: PlainDecoder(event, call) for call in event.system_calls}
        for event in EVENTS
        if event.code in codes
    }


def _getter(field: Field, call: Call) -> Getter:
    texts = {name: index for index, (name, _) in enumerate(call.texts, 2)}
    values = {value.field: value for value in call.values}
    if field.name in texts:
        index = texts[field.name]
        return lambda r, t: t[index]
    if field.name in values:
        return _number(values[field.name], field.kind)
    known = _PATHS.get(field.name)
    if known is None:
        raise ValueError(f"{call.name} says nothing of {field.name}")
    return known(call)


def _number(value: Value, kind: Kind) -> Getter:
    if not value.at:
        constant = bool(value.constant) if kind is Kind.BOOL and value.constant is not None else value.constant
        return lambda r, t: constant
    index = value.at - 1
    form = _FORMS[value.form]
    if kind is Kind.BOOL:
        mask = value.mask or _U32
        return lambda r, t: bool(r[index] & mask)
    if value.mask:
        return lambda r, t: r[index] & value.mask
    return lambda r, t: form(r, index)


def _signed(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


def _unless_all_ones(number: int, bits: int) -> int | None:
    number &= (1 << bits) - 1
    return None if number == (1 << bits) - 1 else number


_FORMS: Final[dict[str, Callable[[Plain, int], int | None]]] = {
    "i": lambda r, index: _signed(r[index], 32),
    "u": lambda r, index: r[index] & _U32,
    "q": lambda r, index: _signed(r[index], 64),
    "w": lambda r, index: _signed(r[index] & _U32 | (r[index + 1] & _U32) << 32, 64),
    "m": lambda r, index: _unless_all_ones(r[index], 32),
    "h": lambda r, index: _unless_all_ones(r[index], 16),
    "l": lambda r, index: _unless_all_ones(r[index], 64),
}


# Functions of their own, no lambdas in lambdas: these the compiler (deploy/compiled) doesn't take.


def _path(call: Call) -> Getter:
    """The descriptor's path, or the name put behind where it begins; an empty name is the descriptor itself."""
    if call.dirs[0] == RESULT:
        return lambda r, t: t[0] if r.ret == 0 else None
    if not call.names[0]:
        return _descriptor
    follows = call.follows
    return lambda r, t: joined(t[0], t[1], follows)[0] if t[1] else _descriptor(r, t)


def _descriptor(r: Plain, t: Texts) -> bytes | None:
    return walked_path(t[0], r.i_mode, r.ino) if r.ino else None


def _newpath(call: Call) -> Getter:
    return lambda r, t: joined(t[2], t[3], False)[0] if t[3] else None


def _rawpath(call: Call) -> Getter:
    return (lambda r, t: t[1]) if call.names[0] else _nothing


def _nothing(r: Plain, t: Texts) -> None:
    """The call has no such thing; or, of the names that policies have for a file, the decoder knows them."""


def _rawnewpath(call: Call) -> Getter:
    return lambda r, t: t[3]


def _old_kind(call: Call) -> Getter:
    return lambda r, t: kind_of_file(r.i_mode, t[0]) if r.ino else None


def _file_id(call: Call) -> Getter:
    return lambda r, t: file_id(r.dev, r.ino, r.generation)


def _names(call: Call) -> Getter:
    return _nothing


def _call(call: Call) -> Getter:
    name = call.name.encode("ascii")
    return lambda r, t: name


def _ret(call: Call) -> Getter:
    return lambda r, t: result(r.ret)


_PATHS: Final[dict[str, Callable[[Call], Getter]]] = {
    "path": _path,
    "newpath": _newpath,
    "rawpath": _rawpath,
    "rawnewpath": _rawnewpath,
    "old.kind": _old_kind,
    "file.id": _file_id,
    FILE_NAMES_NAME: _names,
    "call": _call,
    "ret": _ret,
}


def check(nr: int, decoders: dict[int, PlainDecoder]) -> PlainDecoder:
    """Returns the decoder of a call. Raises BadRecord for a number that its event doesn't have."""
    found = decoders.get(nr)
    if found is None:
        raise BadRecord(f"call {nr} is no such event")
    return found
