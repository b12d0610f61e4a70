"""Rows of a batch as Events, made only for those that meet a step, and what keeping them costs."""

from __future__ import annotations

from typing import Any, Final

from execray.errors import PeerError
from execray.schema.catalog import ACTOR_SLOT_OF, ACTOR_SLOTS, EVENT_BY_CODE, Flag
from execray.schema.event import Actor, Event, ProcessId, Value
from execray.schema.kinds import Kind
from execray.wire.frames import Batch
from policyd.engine.rows import check_value
from policyd.engine.shares import Owner

#: What a partial's weight counts in, in bytes of text; a partial without any weighs one.
WEIGHT_BYTES: Final = 256

_UID: Final = ACTOR_SLOT_OF["uid"]
_CGROUP: Final = ACTOR_SLOT_OF["cgroup.id"]
_CONTAINER: Final = ACTOR_SLOT_OF["container.id"]
_ACTOR_ENTRIES: Final = 8192
_ACTOR_TEXTS: Final = tuple(at for at, field in enumerate(ACTOR_SLOTS) if field.kind.is_text)
_ACTOR_ARGV: Final = ACTOR_SLOT_OF["argv"]


class ActorCache:
    """Shares equal actors between events, so that a thousand partials in one process hold its ancestors once."""

    def __init__(self) -> None:
        self._actors: dict[tuple[tuple[Value, ...], int], Actor] = {}

    def get(self, slots: tuple[Value, ...], parent: Actor | None) -> Actor:
        """Returns the actor with these slots and this very parent object. Raises PeerError where they can't be an actor's."""
        # The id of the parent is safe as a key: the entry's actor keeps the parent alive.
        key = (slots, id(parent))
        actor = self._actors.get(key)
        if actor is None:
            # Once for each: a chain of parents is the same in batch after batch, and to check it is most of its cost.
            for field, value in zip(ACTOR_SLOTS, slots, strict=True):
                check_value(field.kind, value)
            if slots[0] is None:
                raise PeerError("an actor without identity")
            if len(self._actors) >= _ACTOR_ENTRIES:
                self._actors.clear()
            actor = self._actors[key] = Actor(slots, parent)
        return actor

    def __len__(self) -> int:
        return len(self._actors)


class Resolver:
    """Resolves rows of one batch; each actor once."""

    def __init__(self, batch: Batch, cache: ActorCache) -> None:
        self._batch = batch
        self._cache = cache
        self._actors: dict[int, Actor] = {}

    def event(self, position: int) -> Event:
        """Returns the row as an Event. Raises PeerError where its values aren't what the catalogue says."""
        batch = self._batch
        code, time_ns, actor, tid, flags, *raw = batch.events[position]
        kind = EVENT_BY_CODE[code]
        values = tuple(
            [resolve(field.kind, value, batch.strings) for field, value in zip(kind.slots, raw, strict=True)]
        )
        if type(tid) is not int or type(flags) is not int:
            raise PeerError(f"event {batch.first_id + position}: malformed tid or flags")
        return Event(batch.first_id + position, time_ns, kind, self.actor(actor), tid, Flag(flags), values)

    def actor(self, index: int) -> Actor:
        """Returns an actor with its chain of parents. Raises PeerError for a chain that isn't one."""
        chain: list[int] = []
        parent: Actor | None = None
        at: Any = index
        rows = self._batch.actors
        while at is not None:
            if (found := self._actors.get(at)) is not None:
                parent = found
                break
            if type(at) is not int or not 0 <= at < len(rows) or len(chain) > len(rows):
                raise PeerError(f"batch {self._batch.seq} refers to actor {at!r}")
            chain.append(at)
            at = rows[at][0]
        for at in reversed(chain):
            parent = self._actors[at] = self._cache.get(_actor_slots(rows[at], self._batch.strings), parent)
        assert parent is not None
        return parent


def _actor_slots(row: tuple[Any, ...], strings: tuple[bytes, ...]) -> tuple[Value, ...]:
    """Returns an actor's values, its texts looked up; not checked yet."""
    slots: list[Any] = list(row[1:])
    try:
        for at in _ACTOR_TEXTS:
            if slots[at] is not None:
                slots[at] = strings[slots[at]]
        if slots[_ACTOR_ARGV] is not None:
            slots[_ACTOR_ARGV] = tuple([strings[index] for index in slots[_ACTOR_ARGV]])
    except (IndexError, TypeError) as error:
        raise PeerError("an actor with a text that isn't there") from error
    return tuple(slots)


def resolve(kind: Kind, raw: Any, strings: tuple[bytes, ...]) -> Value:
    """Returns a slot's value from what the stream carries. Raises PeerError."""
    if raw is None:
        return None
    value: Value
    try:
        if kind.is_text:
            value = strings[raw]
        elif kind is Kind.TEXTS:
            value = tuple([strings[index] for index in raw])
        else:
            value = raw
    except (IndexError, TypeError) as error:
        raise PeerError(f"no text {raw!r}") from error
    check_value(kind, value)
    return value


def lineage(batch: Batch, index: int) -> tuple[ProcessId, ...]:
    """Returns the identities of an actor and of its creators, nearest first. Raises PeerError."""
    ids: list[ProcessId] = []
    rows = batch.actors
    at: Any = index
    while at is not None:
        if type(at) is not int or not 0 <= at < len(rows) or len(ids) > len(rows):
            raise PeerError(f"batch {batch.seq} refers to actor {at!r}")
        ids.append(rows[at][1])
        at = rows[at][0]
    return tuple(ids)


def owner_of(actor: Actor) -> Owner:
    """Returns who what the actor does counts for: its user, in its container, or else in its cgroup."""
    # A container's cgroup may have others below it, which its processes can make.
    uid, group = actor.slots[_UID], actor.slots[_CONTAINER]
    if not isinstance(group, bytes):
        group = actor.slots[_CGROUP]
    return Owner(uid if isinstance(uid, int) else -1, group if isinstance(group, int | bytes) else -1)


def weight_of(event: Event) -> int:
    """Returns what keeping an event costs, in units of WEIGHT_BYTES of text, rounded up; ancestors' text included."""
    total = text_bytes(event.slots)
    actor: Actor | None = event.actor
    while actor is not None:
        total += text_bytes(actor.slots)
        actor = actor.parent
    return -(-total // WEIGHT_BYTES)


def text_bytes(values: tuple[Value, ...]) -> int:
    """Returns the bytes of text in some values."""
    total = 0
    for value in values:
        if type(value) is bytes:
            total += len(value)
        elif type(value) is tuple:
            for item in value:
                if type(item) is bytes:
                    total += len(item)
    return total
