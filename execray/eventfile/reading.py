"""Records of an event file to batches, as the engine is fed them. Says where a record is wrong, by file and line."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from execray.errors import OperatorError
from execray.eventfile.writing import LOST_EVENT
from execray.schema.catalog import ACTOR_FIELD_BY_NAME, ACTOR_SLOT_OF, ACTOR_SLOTS, EVENT_BY_NAME, LOST, EventType, Flag
from execray.schema.catalog import Field as CatalogField
from execray.schema.event import ProcessId
from execray.schema.kinds import CONSTANTS, Kind
from execray.wire.frames import Batch, Row

MAX_BATCH_EVENTS: Final = 512
MAX_ANCESTORS: Final = 256
_HEAD: Final = frozenset({"event", "id", "time_ns", "tid", "capture_flags", "ancestor"})
_FLAGS: Final = {str(flag.name).lower(): flag for flag in Flag}
_DIGITS: Final = re.compile(r"0x[0-9a-fA-F]{1,16}|0o[0-7]{1,22}|0|[1-9]\d{0,19}")
_PROCESS_ID: Final = re.compile(r"(\d{1,10})-(\d{1,19})")
_PARENT: Final = "parent."


class EventFileError(OperatorError):
    """A record that is none; the message begins with FILE:LINE."""


@dataclass(slots=True)
class Notes:
    """What was left out of records, each told once, with the line where it was met first."""

    first_line: dict[str, int] = field(default_factory=dict)

    def add(self, text: str, line: int) -> None:
        """Remembers a remark."""
        self.first_line.setdefault(text, line)


@dataclass(frozen=True, slots=True)
class Record:
    """One line, checked. kind None: events that never came, and `values` is (where, count, since_ns)."""

    kind: EventType | None
    id: int
    time_ns: int
    tid: int
    flags: Flag
    values: tuple[Any, ...]
    chain: tuple[tuple[Any, ...], ...] = ()  # the actor's slots, its parent's, and so on


class EventReader:
    """Reads the records of one file, in order."""

    def __init__(self, lines: Iterable[str], name: str, notes: Notes | None = None) -> None:
        """lines: the file's, with or without their newlines. name: for messages."""
        self.notes = notes or Notes()
        self._lines = lines
        self._name = name
        self._last_id = -1

    def batches(self, size: int = MAX_BATCH_EVENTS) -> Iterator[Batch]:
        """Yields the events, at most `size` at a time. Raises EventFileError, OSError."""
        waiting: list[Record] = []
        seq = 0
        for record in self.records():
            # A batch numbers its rows one after the other.
            if waiting and (len(waiting) >= size or record.id != waiting[-1].id + 1):
                yield pack(seq, waiting)
                seq += 1
                waiting = []
            waiting.append(record)
        if waiting:
            yield pack(seq, waiting)

    def records(self) -> Iterator[Record]:
        """Yields the records. Raises EventFileError, OSError."""
        for number, line in enumerate(self._lines, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise EventFileError(
                    f"{self._name}:{number}: not a JSON object: {error}", "one object a line"
                ) from error
            record = parse_record(found, self._name, number, self.notes)
            if record.id <= self._last_id:
                message = f"{self._name}:{number}: `id` is {record.id}, after {self._last_id}"
                raise EventFileError(message, "ids grow from line to line")
            self._last_id = record.id
            yield record


def parse_record(found: object, name: str, line: int, notes: Notes) -> Record:
    """Checks one record. Raises EventFileError. Fields that the event doesn't have are noted and left out."""
    return _Parser(name, line, notes).record(found)


class _Parser:
    def __init__(self, name: str, line: int, notes: Notes) -> None:
        self._name = name
        self._line = line
        self._notes = notes

    def record(self, found: object) -> Record:
        if not isinstance(found, dict):
            self._fail("not a JSON object", "one object a line")
        event = found.get("event")
        record_id, time_ns = self._integer(found, "id"), self._integer(found, "time_ns")
        if event == LOST_EVENT:
            where = found.get("where")
            if not isinstance(where, str):
                self._fail("`where` of a loss is text")
            values = (where, self._integer(found, "count"), self._integer(found, "since_ns"))
            return Record(None, record_id, time_ns, 0, Flag(0), values)
        kind = EVENT_BY_NAME.get(event) if isinstance(event, str) else None
        if kind is None:
            self._fail(f"unknown event {event!r}", f"the events are {', '.join(sorted(EVENT_BY_NAME))}")
        own: list[Any] = [None] * len(kind.slots)
        actor: dict[str, Any] = {}
        parent: dict[str, Any] = {}
        for key, value in found.items():
            if key in _HEAD or value is None:
                continue
            if key.startswith(_PARENT):
                parent[key.removeprefix(_PARENT)] = value
            elif (catalog := kind.by_name.get(key)) is None:
                self._notes.add(f"`{kind.name}` has no field `{key}`", self._line)
            elif catalog.name in kind.slot_of:
                own[kind.slot_of[catalog.name]] = self._value(catalog, value)
            elif catalog.name in ACTOR_FIELD_BY_NAME:
                actor[catalog.name] = value
            else:
                self._computed(catalog, found)
        chain = self._chain(actor, parent, found.get("ancestor"))
        tid = self._integer(found, "tid") if "tid" in found else chain[0][0][0]
        return Record(kind, record_id, time_ns, tid, self._flags(found.get("capture_flags")), tuple(own), chain)

    def _chain(self, actor: dict[str, Any], parent: dict[str, Any], ancestors: object) -> tuple[tuple[Any, ...], ...]:
        if ancestors is None:
            ancestors = []
        if not isinstance(ancestors, list) or len(ancestors) > MAX_ANCESTORS:
            self._fail(f"`ancestor` is a list of at most {MAX_ANCESTORS} objects, the parent first")
        creators = [item if isinstance(item, dict) else self._fail("an ancestor is an object") for item in ancestors]
        if parent:
            creators[:1] = [{**(creators[0] if creators else {}), **parent}]
        if "proc.id" not in actor and "pid" not in actor:
            self._fail("neither `proc.id` nor `pid` is there", "a process is named by one of them")
        return tuple(self._actor(fields) for fields in (actor, *creators))

    def _actor(self, fields: dict[str, Any]) -> tuple[Any, ...]:
        slots: list[Any] = [None] * len(ACTOR_SLOTS)
        for key, value in fields.items():
            catalog = ACTOR_FIELD_BY_NAME.get(key)
            if catalog is None:
                self._notes.add(f"a process has no field `{key}`", self._line)
            elif value is None:
                continue
            elif catalog.name in ACTOR_SLOT_OF:
                slots[ACTOR_SLOT_OF[catalog.name]] = self._value(catalog, value)
            elif catalog.name != "pid":
                self._computed(catalog, fields)
        if slots[0] is None:
            slots[0] = (fields["pid"] if type(fields.get("pid")) is int else 0, 0)
        return tuple(slots)

    def _computed(self, catalog: CatalogField, fields: dict[str, Any]) -> None:
        if fields.get(catalog.derived) is None:
            self._notes.add(f"`{catalog.name}` is computed from `{catalog.derived}`, which is not there", self._line)

    def _value(self, catalog: CatalogField, value: Any) -> Any:
        parsed = _parsed(catalog, value)
        if parsed is None:
            self._fail(f"`{catalog.name}` is {json.dumps(value)[:80]}", f"it holds {_form(catalog)}")
        return parsed

    def _flags(self, names: object) -> Flag:
        flags = Flag(0)
        for name in names if isinstance(names, list) else []:
            if name not in _FLAGS:
                self._fail(f"unknown capture flag {name!r}", f"they are {', '.join(sorted(_FLAGS))}")
            flags |= _FLAGS[name]
        return flags

    def _integer(self, found: dict[str, Any], key: str) -> int:
        value = found.get(key)
        if type(value) is not int or not 0 <= value < 1 << 63:
            self._fail(f"`{key}` must be a whole number", "every record has `event`, `id` and `time_ns`")
        return value

    def _fail(self, message: str, hint: str = "") -> NoReturn:
        raise EventFileError(f"{self._name}:{self._line}: {message}", hint)


def _form(catalog: CatalogField) -> str:
    match catalog.kind:
        case Kind.PROCESS:
            return 'a process id such as "4711-1234567890" (pid, start time in ns)'
        case Kind.IP:
            return 'an address such as "192.0.2.1"'
        case Kind.INT | Kind.BITS if catalog.constants:
            return f"a number, or names of the family {catalog.constants}*, joined by |"
        case kind:
            return str(kind.value)


def _parsed(catalog: CatalogField, value: Any) -> Any:  # noqa: PLR0911  # a table
    """Returns a value as the stream holds it, None where it isn't one of the field's kind."""
    match catalog.kind, value:
        case Kind.BOOL, bool():
            return value
        case ((Kind.INT | Kind.BITS | Kind.DURATION), int()) if not isinstance(value, bool):
            return value if -(1 << 63) <= value < 1 << 64 else None
        case ((Kind.INT | Kind.BITS | Kind.DURATION), str()):
            return _number(CONSTANTS.get(catalog.constants, {}), value)
        case ((Kind.BYTES | Kind.PATH), str()):
            return _bytes(value)
        case Kind.TEXTS, list():
            items = [_bytes(item) if isinstance(item, str) else None for item in value]
            return None if None in items else tuple(items)
        case Kind.IP, str():
            try:
                return ipaddress.ip_address(value).packed
            except ValueError:
                return None
        case Kind.PROCESS, str():
            return _process_id(value)
    return None


def _number(family: dict[str, int], text: str) -> int | None:
    """Returns the number that names or digits stand for: `O_WRONLY|O_CREAT`, `-EPERM`, `0o755`."""
    total = 0
    for part in text.split("|"):
        word, sign = (part.strip()[1:], -1) if part.strip().startswith("-") else (part.strip(), 1)
        if word in family:
            value = family[word]
        elif _DIGITS.fullmatch(word):
            value = int(word, 0)
        else:
            return None
        total |= sign * value
    return total


def _bytes(text: str) -> bytes | None:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None


def _process_id(text: str) -> ProcessId | None:
    found = _PROCESS_ID.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


class _Tables:
    """The texts and actors that the rows of one batch share."""

    def __init__(self) -> None:
        self.texts: dict[bytes, int] = {}
        self.actors: dict[Row, int] = {}

    def slots(self, fields: Iterable[CatalogField], values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(self._raw(catalog.kind, value) for catalog, value in zip(fields, values, strict=True))

    def actor(self, chain: tuple[tuple[Any, ...], ...]) -> int:
        index: int | None = None
        for slots in reversed(chain):
            index = self.actors.setdefault((index, *self.slots(ACTOR_SLOTS, slots)), len(self.actors))
        assert index is not None
        return index

    def _raw(self, kind: Kind, value: Any) -> Any:
        if value is None:
            return None
        if kind.is_text:
            return self.texts.setdefault(value, len(self.texts))
        if kind is Kind.TEXTS:
            return tuple(self.texts.setdefault(item, len(self.texts)) for item in value)
        return value


def pack(seq: int, records: list[Record]) -> Batch:
    """Returns records whose ids follow one another as a batch."""
    tables = _Tables()
    rows: list[Row] = []
    for record in records:
        if record.kind is None:
            rows.append((LOST, record.time_ns, *record.values))
            continue
        actor = tables.actor(record.chain)
        own = tables.slots(record.kind.slots, record.values)
        rows.append((record.kind.code, record.time_ns, actor, record.tid, int(record.flags), *own))
    return Batch(seq, records[0].id, tuple(tables.texts), tuple(tables.actors), tuple(rows))
