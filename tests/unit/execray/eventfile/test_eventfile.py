"""Event files: what is written is read back as it was, and what is no record is refused by file and line."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.errors import OperatorError
from execray.eventfile import EventFileError, EventReader, EventWriter, Notes, lost_record, open_events, record_of
from execray.schema.catalog import ACTOR_SLOTS, EVENTS, LOST, EventType, Flag
from execray.schema.event import Actor, Event, Value
from execray.schema.kinds import Kind

_INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
_TEXT = st.binary(max_size=40)
_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INT: _INT64,
    Kind.BITS: st.integers(0, (1 << 63) - 1),
    Kind.DURATION: st.integers(0, 1 << 62),
    Kind.BOOL: st.booleans(),
    Kind.BYTES: _TEXT,
    Kind.PATH: _TEXT,
    Kind.TEXTS: st.lists(_TEXT, max_size=4).map(tuple),
    Kind.IP: st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
    Kind.PROCESS: st.tuples(st.integers(0, (1 << 31) - 1), st.integers(0, (1 << 63) - 1)),
}
_FLAGS = st.sets(st.sampled_from(list(Flag)), max_size=3).map(lambda found: Flag(sum(found)))


@st.composite
def _actors(draw: st.DrawFn) -> Actor:
    actor: Actor | None = None
    for _ in range(draw(st.integers(1, 4))):
        slots = [draw(st.none() | _VALUES[field.kind]) for field in ACTOR_SLOTS]
        slots[0] = draw(_VALUES[Kind.PROCESS])
        actor = Actor(tuple(slots), actor)
    assert actor is not None
    return actor


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    found = []
    for number in draw(st.lists(st.integers(0, 50), unique=True, max_size=6).map(sorted)):
        kind: EventType = draw(st.sampled_from(EVENTS))
        slots: tuple[Value, ...] = tuple(draw(st.none() | _VALUES[field.kind]) for field in kind.slots)
        found.append(Event(number, draw(st.integers(0, 1 << 60)), kind, draw(_actors()), 7, draw(_FLAGS), slots))
    return found


@given(_events())
@settings(max_examples=150, deadline=None)
def test_events_come_back_as_they_were(events: list[Event]) -> None:
    lines = [json.dumps(record_of(event)) for event in events]
    notes = Notes()
    back = [batch.event(at) for batch in EventReader(lines, "f", notes).batches(3) for at in range(len(batch.events))]
    assert back == events
    assert not notes.first_line


def read(*records: object, notes: Notes | None = None) -> list[Event]:
    lines = [json.dumps(record) for record in records]
    batches = list(EventReader(lines, "f.jsonl", notes).batches())
    return [batch.event(at) for batch in batches for at in range(len(batch.events))]


OPEN = {"event": "open", "id": 1, "time_ns": 5, "pid": 7}


def test_what_people_write_is_understood() -> None:
    record = OPEN | {
        "pathname": "/etc/a\udcff",
        "flags": "O_WRONLY | O_CREAT",
        "ret": "-EPERM",
        "parent.exe": "/bin/sh",
    }
    (event,) = read(record | {"event": "openat", "uid": None})
    assert (event.get("path"), event.get("flags"), event.get("ret")) == (b"/etc/a\xff", 0o101, -1)
    assert read(OPEN | {"mode": "0o4755"})[0].get("mode") == 0o4755
    assert (event.get("pid"), event.get("uid"), event.get("parent.exe"), event.tid) == (7, None, b"/bin/sh", 7)


def test_a_loss_is_a_row_of_its_own_and_ids_may_jump() -> None:
    lines = [json.dumps(lost_record(3, "ring", 12, 1, 9)), json.dumps(OPEN | {"id": 40})]
    first, second = EventReader(lines, "f").batches()
    assert first.events == ((LOST, 9, "ring", 12, 1),) and (first.first_id, second.first_id) == (3, 40)


def test_unknown_and_computed_fields_are_noted_once() -> None:
    notes = Notes()
    read(*(OPEN | {"id": n, "colour": 1, "name": "sh", "access": 1} for n in range(3)), notes=notes)
    assert notes.first_line == {
        "`open` has no field `colour`": 1,
        "`name` is computed from `exe`, which is not there": 1,
        "`access` is computed from `flags`, which is not there": 1,
    }


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (OPEN | {"event": "opn"}, "f.jsonl:2: unknown event 'opn'"),
        (OPEN | {"event": 3}, "f.jsonl:2: unknown event 3"),
        ([1], "f.jsonl:2: not a JSON object"),
        (OPEN | {"id": 1}, "f.jsonl:2: `id` is 1, after 1"),
        (OPEN | {"id": True}, "f.jsonl:2: `id` must be a whole number"),
        ({"event": "open", "id": 9, "time_ns": 1}, "f.jsonl:2: neither `proc.id` nor `pid`"),
        (OPEN | {"id": 9, "path": 5}, "f.jsonl:2: `path` is 5"),
        (OPEN | {"id": 9, "path": "\ud800"}, "f.jsonl:2: `path` is"),
        (OPEN | {"id": 9, "flags": "O_NOPE"}, "f.jsonl:2: `flags` is"),
        (OPEN | {"id": 9, "mode": "0755"}, "f.jsonl:2: `mode` is"),
        (OPEN | {"id": 9, "created": 1}, "f.jsonl:2: `created` is 1"),
        (OPEN | {"id": 9, "proc.id": "7"}, "f.jsonl:2: `proc.id` is"),
        (OPEN | {"id": 9, "argv": "a b"}, "f.jsonl:2: `argv` is"),
        (OPEN | {"id": 9, "ancestor": [3]}, "f.jsonl:2: an ancestor is an object"),
        (OPEN | {"id": 9, "capture_flags": ["odd"]}, "f.jsonl:2: unknown capture flag 'odd'"),
        ({"event": "lost", "id": 9, "time_ns": 1}, "f.jsonl:2: `where` of a loss"),
    ],
)
def test_what_is_no_record_is_refused_by_file_and_line(record: object, says: str) -> None:
    with pytest.raises(EventFileError) as caught:
        read(OPEN, record)
    assert caught.value.message.startswith(says)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_file_is_compressed_by_its_ending_and_bounded(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"events.{ending}"
    with EventWriter(path, max_bytes=3 * len(json.dumps(OPEN, separators=(",", ":"))) + 5) as writer:
        assert [writer.write(OPEN | {"id": number}) for number in range(5)] == [True] * 3 + [False] * 2
    with open_events(path) as lines:
        assert [event.id for batch in EventReader(lines, "f").batches() for event in [batch.event(0)]] == [0]
    with open_events(path) as lines:
        assert len(list(lines)) == 3 == writer.written


def test_a_broken_file_is_an_operators_error(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with gzip.GzipFile(fileobj=whole, mode="wb") as file:
        file.write(b"x" * 1000)
    for name, content in (("a.gz", whole.getvalue()[:-9]), ("b.gz", b"no gzip"), ("c.zst", b"no zstd")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OperatorError, match="can't read"), open_events(tmp_path / name) as lines:
            list(lines)
    with pytest.raises(OperatorError, match="can't read"), open_events(tmp_path / "missing"):
        pass
