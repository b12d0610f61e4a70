"""The one table of events: what a policy may name, what the stream carries, what the reference page lists.

Adding a system call is one row in execray/schema/events_*.py: its number and what its arguments are. Where that can't say it, the
row's event gets a record of its own in bpf/include/execray/event.h, a handler and a decoder. Either way one kernel test.

An event's *slots* are its fields that aren't derived, in the order of the row: that is the order in which a batch carries
them (execray.wire.frames). Derived fields are computed from slots by `execray.schema.event`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from execray.schema.actor import ACTOR_FIELDS, HEAD_FIELDS
from execray.schema.events_files import FILE_EVENTS
from execray.schema.events_net import NET_EVENTS
from execray.schema.events_process import PROCESS_EVENTS
from execray.schema.events_system import SYSTEM_EVENTS
from execray.schema.field import NO_CONTENT, NO_FLAG, Content, Field, Flag
from execray.schema.row import EventType

__all__ = [
    "ACTOR_FIELDS",
    "ACTOR_FIELD_BY_NAME",
    "ACTOR_SLOTS",
    "ACTOR_SLOT_OF",
    "CATALOG_VERSION",
    "CREATOR_FIELD_BY_NAME",
    "EVENTS",
    "EVENT_BY_CODE",
    "EVENT_BY_NAME",
    "FIRST_ADDED",
    "FIRST_ADDED_NUMBER",
    "HEAD_FIELD_BY_NAME",
    "LOST",
    "MAX_ADDED",
    "NO_CONTENT",
    "NO_FLAG",
    "Content",
    "EventType",
    "Field",
    "Flag",
    "added",
    "all_fields",
    "install",
]

#: Raised with every change of a row's slots or of their meaning; both ends of the stream must agree on it.
CATALOG_VERSION = 14

#: Codes from here on are of events that packages add (execray.schema.extension): each by its name, the same everywhere.
FIRST_ADDED = 1 << 16
#: What the kernel calls them, where a number has eight bits: in the order of their codes.
FIRST_ADDED_NUMBER = 128
MAX_ADDED = 64

EVENTS: list[EventType] = sorted(
    (*PROCESS_EVENTS, *FILE_EVENTS, *NET_EVENTS, *SYSTEM_EVENTS), key=lambda event: event.code
)
ACTOR_SLOTS: tuple[Field, ...] = tuple(field for field in ACTOR_FIELDS if not field.derived)
#: Code 0 on the stream: (0, time_ns, where, count, since_ns). Not an event a policy can name.
LOST = 0

EVENT_BY_NAME: dict[str, EventType] = {name: event for event in EVENTS for name in (event.name, *event.aliases)}
EVENT_BY_CODE: dict[int, EventType] = {event.code: event for event in EVENTS}
ACTOR_SLOT_OF: dict[str, int] = {field.name: index for index, field in enumerate(ACTOR_SLOTS)}
HEAD_FIELD_BY_NAME: dict[str, Field] = {field.name: field for field in HEAD_FIELDS}
ACTOR_FIELD_BY_NAME: dict[str, Field] = {name: field for field in ACTOR_FIELDS for name in (field.name, *field.aliases)}
#: What can be asked of a creator: what it was when it made the actor, and its age at the event.
CREATOR_FIELD_BY_NAME: dict[str, Field] = {"proc.age": HEAD_FIELD_BY_NAME["proc.age"], **ACTOR_FIELD_BY_NAME}


def install(rows: Iterable[EventType]) -> None:
    """Puts rows that were checked (execray.schema.extension) into this process's catalogue, in place of those of their names."""
    global _added  # noqa: PLW0603  # the catalogue is one for each process, as its tables are
    for row in rows:
        old = EVENT_BY_CODE.get(row.code)
        if old is not None:
            EVENTS.remove(old)
        EVENTS.append(row)
        EVENT_BY_CODE[row.code] = row
        EVENT_BY_NAME.update((name, row) for name in (row.name, *row.aliases))
    EVENTS.sort(key=lambda event: event.code)
    _added = tuple(event.code for event in EVENTS if event.code >= FIRST_ADDED)


_added: tuple[int, ...] = ()


def added() -> tuple[int, ...]:
    """Returns the codes of the events that packages added, in order."""
    return _added


def all_fields() -> Iterator[tuple[EventType | None, Field]]:
    """Yields every field: the actor's with None, then each event's own."""
    for field in ACTOR_FIELDS:
        yield None, field
    for event in EVENTS:
        for field in event.fields:
            yield event, field
