"""The event stream between tracerd and its subscriber: frames, sans I/O.

A frame is a 4-byte big-endian length and a msgpack array whose first element says what it is:

| frame | from | elements |
|---|---|---|
| HELLO | both | protocol, catalogue version, role, facts (map) |
| SUBSCRIBE | policyd | event codes, which bytes to take, `syscall` numbers, plan (bin), paths to match by file, rules (bin) |
| BATCH | tracerd | seq, id of the first event, strings, actors, events |
| ACK | policyd | the last seq whose events are done with |
| HEARTBEAT | tracerd | time_ns, statistics (map) |
| SETTLE | policyd | generation of the plan that a HEARTBEAT named; pairs of a slot, and the end of what had begun in it, in ns |
| TAKEN | tracerd | how many SUBSCRIBEs of this connection it has taken: what the last of them says is in force |
| ERROR | both | message; the sender closes after it |

Text from the kernel is always msgpack `bin`: a file name need not be UTF-8. In a batch, texts are indexes into `strings`; an
actor is `[index of its parent in actors or nil, slots of ACTOR_SLOTS ...]`; an event is
`[code, time_ns, index of the actor, tid, flags, slots of its catalogue row ...]`, or
`[LOST, time_ns, where, count, since_ns]`, where `where` is msgpack str. A batch refers to nothing outside itself. Each of its
rows has the id `first id + position`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgpack

from execray.errors import PeerError
from execray.schema.catalog import ACTOR_SLOTS, CATALOG_VERSION, EVENT_BY_CODE, LOST, Flag
from execray.schema.event import Actor, Event, Value
from execray.schema.kinds import Kind

PROTOCOL_VERSION: Final = 6
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
#: Paths that a subscriber may ask to be matched by file, and their bytes together.
MAX_PATHS: Final = 1024
MAX_PATH_BYTES: Final = 128 * 1024
_LENGTH = struct.Struct(">I")

Row: TypeAlias = tuple[Any, ...]


class Tag(enum.IntEnum):
    """The first element of a frame."""

    HELLO = 1
    SUBSCRIBE = 2
    BATCH = 3
    ACK = 4
    HEARTBEAT = 5
    ERROR = 6
    SETTLE = 7
    TAKEN = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each side.

    facts: tracerd's `boot_id`, `stream_id`, `pid`, `version`; policyd's `version`, `pid`, `resume` (`[stream_id, seq]`).
    """

    role: str
    facts: dict[str, Any]
    protocol: int = PROTOCOL_VERSION
    catalog: int = CATALOG_VERSION


@dataclass(frozen=True, slots=True)
class Subscribe:
    """What the subscriber needs: event codes, which bytes (execray.schema.field.Content), and which calls are `syscall`.

    plan: by which of these events are worth sending (execray.gate.encoding); empty: all.
    paths: those that events shall name the files of (`file.names`), at most MAX_PATHS and MAX_PATH_BYTES together.
    followed: of which of the events also those are wanted that the plan drops, while there is room for them.
    inline: the rules by which the kernel itself kills (execray.gate.inline); empty: it doesn't.
    urgent: the events that something may have to be done at, and that are sent without waiting for others.
    failed: whether execs that failed are wanted too; else only those of which somebody runs another program.
    """

    codes: tuple[int, ...]
    content: int
    numbers: tuple[int, ...] = ()
    plan: bytes = b""
    paths: tuple[bytes, ...] = ()
    followed: tuple[int, ...] = ()
    inline: bytes = b""
    urgent: tuple[int, ...] = ()
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in ring order, with the tables that they refer to."""

    seq: int
    first_id: int
    strings: tuple[bytes, ...]
    actors: tuple[Row, ...]
    events: tuple[Row, ...]

    def event(self, position: int) -> Event:
        """Resolves one row into an Event. Raises PeerError for a LOST row or indexes outside the tables."""
        code, time_ns, actor, tid, flags, *slots = self.events[position]
        kind = EVENT_BY_CODE.get(code)
        if kind is None or len(slots) != len(kind.slots):
            raise PeerError(f"event {self.first_id + position} has code {code} and {len(slots)} fields")
        values = tuple(self._value(field.kind, raw) for field, raw in zip(kind.slots, slots, strict=True))
        return Event(self.first_id + position, time_ns, kind, self.actor(actor), tid, Flag(flags), values)

    def actor(self, index: int) -> Actor:
        """Resolves an actor and the chain of its parents."""
        chain: list[tuple[Value, ...]] = []
        at: int | None = index
        while at is not None:
            if not 0 <= at < len(self.actors) or len(chain) > len(self.actors):
                raise PeerError(f"batch {self.seq} refers to actor {at}")
            parent, *slots = self.actors[at]
            chain.append(tuple(self._value(field.kind, raw) for field, raw in zip(ACTOR_SLOTS, slots, strict=True)))
            at = parent
        actor: Actor | None = None
        for resolved in reversed(chain):
            actor = Actor(resolved, actor)
        assert actor is not None
        return actor

    def _value(self, kind: Kind, raw: Any) -> Value:
        if raw is None:
            return None
        try:
            if kind.is_text:
                text: bytes = self.strings[raw]
                return text
            if kind is Kind.TEXTS:
                return tuple(self.strings[index] for index in raw)
        except (IndexError, TypeError) as error:
            raise PeerError(f"batch {self.seq} refers to text {raw!r}") from error
        if kind is Kind.PROCESS:
            return int(raw[0]), int(raw[1])
        value: int | bool = raw
        return value


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to seq is done with; tracerd may forget it."""

    seq: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """tracerd lives; statistics as `docs/wire.md` lists them."""

    time_ns: int
    stats: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settle:
    """What had begun before a plan came: everything from before it has been taken. ends: slot, end in ns, slot, ..."""

    generation: int
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """So many subscriptions of this connection have been taken: the kernel goes by the last of them."""

    count: int


@dataclass(frozen=True, slots=True)
class Error:
    """Why the sender closes the connection."""

    message: str


Frame: TypeAlias = Hello | Subscribe | Batch | Ack | Heartbeat | Error | Settle | Taken


def encode(frame: Frame) -> bytes:
    """Returns the frame's bytes. Raises ValueError when it is larger than MAX_FRAME_BYTES."""
    match frame:
        case Hello(role, facts, protocol, catalog):
            body = [Tag.HELLO, protocol, catalog, role, facts]
        case Subscribe(codes, content, numbers, plan, paths, followed, inline, urgent, failed):
            body = [Tag.SUBSCRIBE, codes, content, numbers, plan, paths, followed, inline, urgent, failed]
        case Batch(seq, first_id, strings, actors, events):
            body = [Tag.BATCH, seq, first_id, strings, actors, events]
        case Ack(seq):
            body = [Tag.ACK, seq]
        case Heartbeat(time_ns, stats):
            body = [Tag.HEARTBEAT, time_ns, stats]
        case Error(message):
            body = [Tag.ERROR, message]
        case Settle(generation, ends):
            body = [Tag.SETTLE, generation, ends]
        case Taken(count):
            body = [Tag.TAKEN, count]
    raw: bytes = msgpack.packb(body, use_bin_type=True)
    if len(raw) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(raw)} bytes is over {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(raw)) + raw


#: What each frame's elements must be, after the tag.
_SHAPES: dict[int, tuple[type, ...]] = {
    Tag.HELLO: (int, int, str, dict),
    Tag.SUBSCRIBE: (tuple, int, tuple, bytes, tuple, tuple, bytes, tuple, bool),
    Tag.BATCH: (int, int, tuple, tuple, tuple),
    Tag.ACK: (int,),
    Tag.HEARTBEAT: (int, dict),
    Tag.ERROR: (str,),
    Tag.SETTLE: (int, tuple),
    Tag.TAKEN: (int,),
}


def decode_body(raw: bytes | memoryview) -> Frame:
    """Decodes one frame's body. Raises PeerError for anything that isn't a well-formed frame."""
    try:
        body = msgpack.unpackb(raw, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise PeerError(f"not msgpack: {type(error).__name__}") from error
    if not isinstance(body, tuple) or not body or type(body[0]) is not int:
        raise PeerError("a frame is an array that begins with its tag")
    shape = _SHAPES.get(body[0])
    if shape is None:
        raise PeerError(f"unknown frame {body[0]}")
    # Messages grow by optional elements at the end: more than we know is fine, fewer is not.
    fields = body[1 : 1 + len(shape)]
    if tuple(map(type, fields)) != shape:
        raise PeerError(f"malformed {Tag(body[0]).name} frame")
    if body[0] == Tag.BATCH:  # what nearly all of them are
        _check_batch(*fields)
        return Batch(*fields)
    return _build(Tag(body[0]), fields)


_AS_THEY_ARE: Final[dict[Tag, Callable[..., Frame]]] = {
    Tag.ACK: Ack,
    Tag.HEARTBEAT: Heartbeat,
    Tag.ERROR: Error,
    Tag.TAKEN: Taken,
}


def _build(tag: Tag, fields: Row) -> Frame:
    match tag:
        case Tag.HELLO:
            protocol, catalog, role, facts = fields
            return Hello(role, facts, protocol, catalog)
        case Tag.SUBSCRIBE:
            if not _are(int, (*fields[0], *fields[2], *fields[5], *fields[7])) or not _are_paths(fields[4]):
                raise PeerError("malformed SUBSCRIBE frame")
            return Subscribe(*fields)
        case Tag.ACK | Tag.HEARTBEAT | Tag.ERROR | Tag.TAKEN:
            return _AS_THEY_ARE[tag](*fields)
        case Tag.SETTLE:
            if not _are(int, fields[1]) or len(fields[1]) % 2:
                raise PeerError("malformed SETTLE frame")
            return Settle(*fields)
        case Tag.BATCH:
            _check_batch(*fields)
            return Batch(*fields)


_CODE, _TIME, _ACTOR = itemgetter(0), itemgetter(1), itemgetter(2)


def _check_batch(seq: int, first_id: int, strings: Row, actors: Row, events: Row) -> None:
    """Checks what the engine's hot loop relies on: types of rows, and indexes inside the tables.

    By columns: event by event it takes three times as long, which was a third of what the engine takes for an event.
    """
    if not _are(bytes, strings):
        raise PeerError(f"batch {seq}: a string is not bin")
    if not _are(tuple, actors) or not set(map(len, actors)) <= {1 + len(ACTOR_SLOTS)}:
        raise PeerError(f"batch {seq}: malformed actor")
    try:
        well = _are(tuple, events) and _are(int, map(_TIME, events))
        shapes, indexes = set(zip(map(_CODE, events), map(len, events), strict=False)), set(map(_ACTOR, events))
    except (TypeError, IndexError) as error:
        raise PeerError(f"batch {seq}: malformed event") from error
    if not well:
        raise PeerError(f"batch {seq}: malformed event")
    for code, length in shapes:
        kind = EVENT_BY_CODE.get(code) if type(code) is int else None
        if (kind is None or length != 5 + len(kind.slots)) and (type(code) is not int or code != LOST or length < 5):
            raise PeerError(f"batch {seq}: event code {code!r} with {length} elements")
    if not _are(int, indexes):  # in a LOST row, a text stands there
        indexes = {event[2] for event in events if event[0] != LOST}
    if indexes and (not _are(int, indexes) or not 0 <= min(indexes) <= max(indexes) < len(actors)):
        raise PeerError(f"batch {seq}: an actor that is not one of {len(actors)}")


def _are(kind: type, values: Iterable[object]) -> bool:
    return set(map(type, values)) <= {kind}


def _are_paths(values: Row) -> bool:
    return (
        len(values) <= MAX_PATHS
        and _are(bytes, values)
        and sum(map(len, values)) <= MAX_PATH_BYTES
        and all(value.startswith(b"/") and b"\0" not in value for value in values)
    )


class Decoder:
    """Splits a byte stream into frames. Holds at most one frame and what came with it."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max = max_frame_bytes

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that data completes. Raises PeerError; the connection is then of no more use."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer, start)
                if length > self._max:
                    raise PeerError(f"a frame of {length} bytes is over {self._max}")
                end = start + _LENGTH.size + length
                if len(self._buffer) < end:
                    break
                body = bytes(self._buffer[start + _LENGTH.size : end])
                start = end
                yield decode_body(body)
        finally:
            del self._buffer[:start]


def check_hello(frame: Frame, role: str) -> Hello:
    """Returns the frame when it is a Hello of that role in versions we speak. Raises PeerError."""
    if not isinstance(frame, Hello):
        raise PeerError(f"expected a hello, got {type(frame).__name__}")
    if frame.protocol != PROTOCOL_VERSION:
        raise PeerError(f"stream protocol {frame.protocol}, and this is {PROTOCOL_VERSION}")
    if frame.catalog != CATALOG_VERSION:
        raise PeerError(f"event catalogue {frame.catalog}, and this is {CATALOG_VERSION}")
    if frame.role != role:
        raise PeerError(f"expected {role}, got {frame.role[:32]!r}")
    return frame
