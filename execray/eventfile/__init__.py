"""Event files: recorded or hand-written events as JSON lines, a public format (docs/eventfile.md)."""

from execray.eventfile.reading import EventFileError, EventReader, Notes, parse_record
from execray.eventfile.store import EventWriter, open_events
from execray.eventfile.writing import lost_record, record_of

__all__ = [
    "EventFileError",
    "EventReader",
    "EventWriter",
    "Notes",
    "lost_record",
    "open_events",
    "parse_record",
    "record_of",
]
