"""Events, and further calls of events, that packages bring along: from the text of their tables to rows of the catalogue.

A table is TOML, so nothing of a package runs where it is read. See docs/plugins.md.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from execray.schema.actor import ACTOR_FIELDS, HEAD_FIELDS
from execray.schema.calls import Call, parse_call, places_of
from execray.schema.catalog import (
    EVENT_BY_CODE,
    EVENT_BY_NAME,
    EVENTS,
    FIRST_ADDED,
    MAX_ADDED,
    added,
    all_fields,
    install,
)
from execray.schema.field import Field, Flag
from execray.schema.kinds import CONSTANTS, Kind
from execray.schema.layout import ER_SHAPES_COMPAT, ER_SHAPES_NATIVE, ER_SHAPES_SOCKETCALL, ER_SHAPES_URING
from execray.schema.row import CALL, FILE_ID, FILE_NAMES, FILE_NAMES_NAME, OLD_KIND, RAWPATH, RET, EventType, named_path

API_VERSION: Final = 1
MAX_TABLE_BYTES: Final = 256 * 1024
MAX_HANDLED: Final = 16  # events of one object: ER_OWN_MAX
MAX_FIELDS: Final = 12
#: Events whose calls have handlers, and records, of their own: a line alone adds nothing to them.
OWN_RECORDS: Final = frozenset(
    (
        *(
            "exec",
            "fork",
            "exit",
            "open",
            "create",
            "write",
            "connect",
            "bind",
            "listen",
            "accept",
            "sendto",
            "ptrace",
            "kill",
        ),
        *("procmem", "procread", "read", "setuid", "cred_change", "capset", "syscall"),
    )
)
_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31})?")
_FILE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\.bpf\.o")
_KINDS: Final = {"int": Kind.INT, "bool": Kind.BOOL, "bits": Kind.BITS, "text": Kind.BYTES}
#: What a call's line says without naming it, and so has one meaning everywhere.
SHARED: Final[Mapping[str, Field]] = {
    "path": named_path("What the call names, or has a descriptor of."),
    "newpath": Field(
        "newpath", Kind.PATH, "What its second name names.", cut_by=named_path("").cut_by, ecs="file.target_path"
    ),
    "rawpath": RAWPATH,
    "rawnewpath": Field(
        "rawnewpath", Kind.BYTES, "The second name as passed.", cut_by=Flag.RAWPATH_TRUNCATED, spoofable=True
    ),
    "old.kind": OLD_KIND,
    "file.id": FILE_ID,
    FILE_NAMES_NAME: FILE_NAMES,
    "call": CALL,
    "ret": RET,
}


class BadTable(ValueError):
    """A table that can't be used, and why, in one line."""


@dataclass(frozen=True, slots=True)
class Table:
    """What one package adds."""

    package: str
    events: tuple[EventType, ...]
    more: tuple[tuple[str, tuple[str, ...]], ...]  # event of ours, and lines of further calls that it is


def code_of_name(name: str) -> int:
    """Returns the code of an added event: the same in every process and on every host, whatever else is installed."""
    return FIRST_ADDED + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % (1 << 30)


def read_table(text: str, package: str, folder: str) -> Table:
    """Returns what a table says. folder: of the package, where its objects are. Raises BadTable."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadTable(f"not TOML: {error}") from error
    _keys(found, "the table", {"api"}, {"event", "more"})
    if found["api"] != API_VERSION:
        raise BadTable(f"written for version {found['api']!r} of the interface, and this is {API_VERSION}")
    places: dict[str, int] = {}
    events = tuple(_event(one, package, folder, places) for one in _maps(found, "event"))
    more = tuple(_more(one) for one in _maps(found, "more"))
    if not events and not more:
        raise BadTable("says nothing")
    return Table(package, events, more)


def add(table: Table) -> None:
    """Adds all of a table to this process's catalogue, or nothing. Raises BadTable where it doesn't fit what is there."""
    rows: list[EventType] = []
    taken = _taken(EVENTS)
    kinds = {field.name: field.kind for _, field in all_fields()}
    for event in table.events:
        if event.name in EVENT_BY_NAME or event.name in {row.name for row in rows}:
            raise BadTable(f"there is an event `{event.name}` already")
        if event.code in EVENT_BY_CODE or event.code in {row.code for row in rows}:
            raise BadTable(f"`{event.name}` has the code of another event: give it another name")
        for field in event.fields:
            if kinds.setdefault(field.name, field.kind) is not field.kind:
                raise BadTable(f"field `{field.name}` is a {kinds[field.name].value} in other events")
        _check_calls(event, event.system_calls, {} if event.handler else taken)
        rows.append(event)
    for name, lines in table.more:
        known = next((row for row in rows if row.name == name), EVENT_BY_NAME.get(name))
        if known is None or known.name in OWN_RECORDS or known.handler:
            raise BadTable(f"`{name}` is no event that can have further calls")
        grown = replace(known, calls=(*known.calls, *lines), package=known.package or table.package)
        _check_calls(grown, grown.system_calls[len(known.calls) :], taken)
        numbers = [call.number for call in grown.system_calls]
        if len(numbers) != len(set(numbers)):
            raise BadTable(f"a call of `{name}` is one of its calls already")
        rows = [row for row in rows if row.name != name] + [grown]
    if len({*added(), *(row.code for row in rows if row.code >= FIRST_ADDED)}) > MAX_ADDED:
        raise BadTable(f"packages add more than {MAX_ADDED} events")
    install(rows)


def digests() -> dict[str, str]:
    """Returns for each event that a package has a part in what it is made of, for the other end of the stream to compare."""
    return {event.name: _digest(event) for event in EVENTS if event.package}


def disagreements(theirs: object) -> dict[str, str]:
    """Returns for each event that a peer whose hello has these digests knows otherwise, or not at all, how to mend that."""
    other = theirs if isinstance(theirs, dict) else {}
    mine = digests()
    out = {}
    for name in sorted(mine.keys() | {str(name) for name in other}):
        if name not in other:
            out[name] = f"tracerd doesn't have what {EVENT_BY_NAME[name].package} adds to it: restart tracerd"
        elif name not in mine:
            out[name] = "tracerd has it from a package that policyd doesn't have: restart policyd"
        elif mine[name] != other[name]:
            out[name] = f"tracerd has it from another version of {EVENT_BY_NAME[name].package}: restart both"
    return out


def _digest(event: EventType) -> str:
    slots = [(field.name, field.kind.value) for field in event.slots]
    return hashlib.sha256(repr((event.code, slots, event.calls)).encode()).hexdigest()[:16]


# --- reading --------------------------------------------------------------------------------------------------------------


def _keys(found: Mapping[str, Any], where: str, must: set[str], may: set[str]) -> None:
    if missing := must - set(found):
        raise BadTable(f"{where} has no `{min(missing)}`")
    if unknown := set(found) - must - may:
        raise BadTable(f"{where} has `{min(unknown)}`, which means nothing")


def _maps(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = found.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadTable(f"`{key}` is not a list of tables: write [[{key}]]")
    return value


def _text(found: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = found.get(key, default)
    if not isinstance(value, str) or not value.isprintable() or len(value) > 500:
        raise BadTable(f"`{key}` of {where} is not one line of text")
    return value


def _lines(found: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = found.get("calls")
    if not isinstance(value, list) or not value or not all(isinstance(line, str) for line in value):
        raise BadTable(f"`calls` of {where} is not a list of lines")
    for line in value:
        try:
            parse_call(line)
        except ValueError as error:
            raise BadTable(f"{where}: not a call: {line[:100]!r}") from error
    return tuple(value)


def _event(found: dict[str, Any], package: str, folder: str, places: dict[str, int]) -> EventType:
    name = _text(found, "name", "an event")
    where = f"event `{name}`"
    if not _EVENT.fullmatch(name):
        raise BadTable(f"{where}: a name is small letters, digits and _, at most 32")
    _keys(found, where, {"name", "doc", "fields", "calls"}, {"category", "object"})
    handler = _text(found, "object", where, "")
    if handler and not _FILE.fullmatch(handler):
        raise BadTable(f"{where}: `{handler}` is no name of an object, such as own.bpf.o")
    fields = [_field(one, where) for one in _maps(found, "fields")]
    own = [name for field in fields for name in (field.name, *field.aliases)]
    known = {name for field in (*HEAD_FIELDS, *ACTOR_FIELDS) for name in (field.name, *field.aliases)} | {"id"}
    if doubled := [name for name in own if own.count(name) > 1 or name in known]:
        raise BadTable(f"{where}: field `{doubled[0]}` is there already")
    place = places.get(handler, 0)
    if handler:
        places[handler] = place + 1
        if place >= MAX_HANDLED:
            raise BadTable(f"{handler} has more than {MAX_HANDLED} events")
    if len(fields) > MAX_FIELDS:
        raise BadTable(f"{where} has more than {MAX_FIELDS} fields")
    doc = _text(found, "doc", where)
    return EventType(
        code_of_name(name),
        name,
        doc if doc.endswith(".") else f"{doc}.",
        (*fields, RET),
        calls=_lines(found, where),
        ecs_category=_text(found, "category", where, "process"),
        ecs_action=name,
        package=package,
        handler=f"{folder}/{handler}" if handler else "",
        place=place,
    )


def _field(found: dict[str, Any], where: str) -> Field:
    name = _text(found, "name", f"a field of {where}")
    if name in SHARED:
        _keys(found, f"field `{name}` of {where}", {"name"}, {"doc"})
        return replace(SHARED[name], doc=_text(found, "doc", where, SHARED[name].doc))
    if not _FIELD.fullmatch(name):
        raise BadTable(f"{where}: `{name}` is no name of a field")
    where = f"field `{name}` of {where}"
    _keys(found, where, {"name", "doc", "kind"}, {"constants", "unit"})
    kind, family = _KINDS.get(str(found["kind"])), _text(found, "constants", where, "")
    if kind is None:
        raise BadTable(f"{where}: the kinds are {', '.join(_KINDS)}")
    if family and (family not in CONSTANTS or kind not in (Kind.INT, Kind.BITS)):
        raise BadTable(f"{where}: there are no constants {family}")
    text = kind is Kind.BYTES
    cut = Flag.RAWPATH_TRUNCATED if text else Flag(0)
    unit = _text(found, "unit", where, "")
    return Field(name, kind, _text(found, "doc", where), unit=unit, constants=family, cut_by=cut, spoofable=text)


def _more(found: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    name = _text(found, "event", "a [[more]]")
    _keys(found, f"[[more]] of `{name}`", {"event", "calls"}, set())
    return name, _lines(found, f"[[more]] of `{name}`")


# --- fitting --------------------------------------------------------------------------------------------------------------


def _taken(events: Iterable[EventType]) -> dict[int, list[Call]]:
    out: dict[int, list[Call]] = {}
    for event in events:
        for call in event.system_calls if not event.handler else ():
            for place in places_of(call):
                out.setdefault(place, []).append(call)
    return out


def _check_calls(event: EventType, calls: Iterable[Call], taken: dict[int, list[Call]]) -> None:
    """Whether the kernel's table and the decoder can do with these lines. Adds them to what is taken. Raises BadTable."""
    for call in calls:
        where = f"call {call.name} of `{event.name}`"
        _check_numbers(call, where)
        said = {*(value.field for value in call.values), *(name for name, _ in call.texts), *_implied(call)}
        if missing := [field.name for field in event.slots if field.name not in said]:
            raise BadTable(f"{where} says nothing of {missing[0]}")
        for place in places_of(call):
            others = taken.setdefault(place, [])
            # the third event that a call may be is `syscall`, which any policy may make it
            if len(others) > 1:
                raise BadTable(f"{where} is two events already")
            # the table has one shape for a call: what another event reads of it must not change
            if others and (_positions(call) not in (_positions(others[0]), _NOTHING) or call.need[0]):
                raise BadTable(
                    f"{where}: `{others[0].name}` is another event's too, which says other things of its arguments"
                )
            others.append(call)


def _implied(call: Call) -> Iterator[str]:
    yield from ("ret", "call", "file.id", FILE_NAMES_NAME, "path", "rawpath")
    if call.names[1]:
        yield from ("newpath", "rawnewpath")


def _check_numbers(call: Call, where: str) -> None:
    limits = (
        (ER_SHAPES_NATIVE, ER_SHAPES_COMPAT),
        (ER_SHAPES_COMPAT, ER_SHAPES_COMPAT + 512),
        (ER_SHAPES_SOCKETCALL, ER_SHAPES_SOCKETCALL + 32),
        (ER_SHAPES_URING, ER_SHAPES_URING + 64),
    )
    numbers: tuple[Iterable[int | None], ...] = ((call.native, call.x32), call.compat, call.socketcall, call.uring)
    for (first, end), found in zip(limits, numbers, strict=True):
        if any(number is not None and not 0 <= number < end - first for number in found):
            raise BadTable(f"{where} has a number that no call has")


def _positions(call: Call) -> tuple[object, ...]:
    return (call.fd, tuple(call.dirs), tuple(call.names), tuple(at for _, at in call.texts))


_NOTHING: Final = (0, (0, 0), (0, 0), ())
