"""Rows of a batch as Events, made only for those that meet a step, and what keeping them costs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from execray.errors import PeerError
from execray.schema.catalog import ACTOR_SLOT_OF, ACTOR_SLOTS, EVENT_BY_CODE, EventType, Flag
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
#: In each half of the cache: when the newer is full, the older is forgotten.
_ACTOR_ENTRIES: Final = 1024
#: Lines of creators are shared, so their texts alone are weighed. But whoever starts programs in programs, and renames the first
#: of them each time, has lines of hundreds that share nothing: past what ordinary work has, each one weighs what it takes.
_LINE: Final = 16
_ACTOR_BYTES: Final = 1024
#: Of one process so many forms are remembered. One that goes on to change is made anew each time, with all below it: then
#: nothing is shared, and each weighs what it takes.
_FORMS: Final = 8
#: Forms of all processes, besides those that they had last.
_BEFORE_ENTRIES: Final = 512
_HEAD: Final = 5  # elements of a row before the values
_ACTOR_TEXTS: Final = tuple(at for at, field in enumerate(ACTOR_SLOTS) if field.kind.is_text)
_ACTOR_ARGV: Final = ACTOR_SLOT_OF["argv"]
#: The Python types of rows, and of actors, that were found to be well-formed: most have the same, and to check them takes long.
#: Of an actor's, `Known.missing` follows.
_MAX_SHAPES: Final = 256
_ACTOR_SHAPES: Final[dict[tuple[type, ...], int]] = {}


class Known:
    """An actor, and what follows from it for all that it does.

    id: (pid, start_ns). texts: the bytes of its texts and its creators', with something for each of a long line. missing: its
    slots that have no value, as bits. owner: who it counts for. depth: how many creators it has. forms: how many others of its
    process were made before it, lately. alone: whether one of its creators changes all the time, so that it shares none of them.
    """

    __slots__ = ("actor", "alone", "depth", "forms", "id", "missing", "owner", "texts")

    def __init__(
        self, actor: Actor, texts: int, missing: int, owner: Owner, depth: int, forms: int, alone: bool
    ) -> None:
        self.actor = actor
        self.id: ProcessId = actor.id
        self.texts = texts
        self.missing = missing
        self.owner = owner
        self.depth = depth
        self.forms = forms
        self.alone = alone


class ActorCache:
    """Shares equal actors between events, so that a thousand partials in one process hold its ancestors once."""

    def __init__(self) -> None:
        self._actors: dict[ProcessId, Known] = {}  # as each was when it was last looked at
        self._size = 0  # of these; one that shares no creators counts with them
        self._older: dict[ProcessId, Known] = {}  # those that weren't looked at for a while
        #: What those that changed were before, the latest last; and who changed last stands last. One that acts and has
        #: children that do is told in turns with all of its arguments and with the first; others go to and fro between names.
        self._before: dict[ProcessId, list[Known]] = {}
        self._many = 0  # in all of these lists

    def get(self, slots: tuple[Value, ...], parent: Known | None) -> Known:
        """Returns the actor with these slots and this very parent object. Raises PeerError where they can't be an actor's."""
        # To compare all values takes a fourth of what it takes to hash them.
        process: Any = slots[0]
        creator = None if parent is None else parent.actor
        known = self._actors.get(process)
        if known is not None:
            if known.actor.parent is creator and known.actor.slots == slots:
                return known
            found = self._changed(known, slots, parent)
        else:
            found = self._returned(process, slots, parent)
            if self._size >= _ACTOR_ENTRIES:
                self._older, self._actors, self._size = self._actors, {}, 0
            self._size += 1 + found.depth if found.alone else 1
        self._actors[process] = found
        return found

    def _returned(self, process: ProcessId, slots: tuple[Value, ...], parent: Known | None) -> Known:
        """Returns an actor that wasn't looked at for a while, or never."""
        known = self._older.pop(process, None)
        if known is None:
            return _known(slots, parent, 0)
        known.forms //= 2  # what was long ago counts less
        return known if _is(known, slots, parent) else self._changed(known, slots, parent)

    def _changed(self, known: Known, slots: tuple[Value, ...], parent: Known | None) -> Known:
        """Returns another form of an actor than the last one: one from before, or a new one."""
        before = self._before.pop(known.id, [])
        self._many -= len(before)
        at = next((at for at, other in enumerate(before) if _is(other, slots, parent)), -1)
        found = before.pop(at) if at >= 0 else _known(slots, parent, known.forms + 1)
        if not known.alone:  # what was made for one event comes no more
            before.append(known)
            del before[: -(_FORMS - 1)]
        if before:
            self._before[known.id] = before
            self._many += len(before)
            while self._many > _BEFORE_ENTRIES:
                self._many -= len(self._before.pop(next(iter(self._before))))
        return found

    def __len__(self) -> int:
        return len(self._actors) + len(self._older) + self._many


def _is(known: Known, slots: tuple[Value, ...], parent: Known | None) -> bool:
    return known.actor.parent is (None if parent is None else parent.actor) and known.actor.slots == slots


def _known(slots: tuple[Value, ...], parent: Known | None, forms: int) -> Known:
    shape = tuple([type(value) for value in slots])
    missing = _ACTOR_SHAPES.get(shape)
    if missing is None:
        for field, value in zip(ACTOR_SLOTS, slots, strict=True):
            check_value(field.kind, value)
        if slots[0] is None:
            raise PeerError("an actor without identity")
        missing = sum(1 << at for at, value in enumerate(slots) if value is None)
        if len(_ACTOR_SHAPES) < _MAX_SHAPES:
            _ACTOR_SHAPES[shape] = missing
    actor = Actor(slots, None if parent is None else parent.actor)
    texts, depth, alone = text_bytes(slots), 0, False
    if parent is not None:
        texts, depth, alone = texts + parent.texts, parent.depth + 1, parent.alone or parent.forms >= _FORMS
    if depth > _LINE or forms >= _FORMS:
        texts += _ACTOR_BYTES
    return Known(actor, texts, missing, owner_of(actor), depth, forms, alone)


class Sighting:
    """A row of a batch that met a step: its values, looked up and checked. The Event is made when it is first asked for.

    known: its actor. flagged: whether it has flags, so that some may be in doubt. weight: what keeping it as evidence costs, in
    units of WEIGHT_BYTES of text, rounded up; the texts of the actor and its creators included.
    """

    __slots__ = ("_event", "_number", "_row", "_texts", "flagged", "known", "weight")

    def __init__(self, number: int, row: tuple[Any, ...], texts: list[Any], size: int, known: Known) -> None:
        """number: the event's. texts: those of the row in the order of its layout, and their bytes."""
        self._number = number
        self._row = row
        self._texts = texts
        self._event: Event | None = None
        self.known = known
        self.flagged: bool = row[4] != 0
        self.weight = -(-(size + known.texts) // WEIGHT_BYTES)

    @property
    def event(self) -> Event:
        """The event; the same object each time."""
        if self._event is None:
            row = self._row
            layout, flags = _LAYOUTS[row[0]], _flag(row[4]) if row[4] else _NO_FLAG
            values = layout.values(row, self._texts)
            self._event = Event(self._number, row[1], layout.kind, self.known.actor, row[3], flags, values)
        return self._event


_NO_FLAG: Final = Flag(0)


@lru_cache(maxsize=256)
def _flag(flags: int) -> Flag:
    # To make a Flag of a number takes longer than all else that an Event needs.
    return Flag(flags)


class _Layout:
    """Of one type of event: where its texts stand, in a row and among the values."""

    def __init__(self, kind: EventType) -> None:
        self.kind = kind
        texts = [at for at, field in enumerate(kind.slots) if field.kind.is_text]
        lists = [at for at, field in enumerate(kind.slots) if field.kind is Kind.TEXTS]
        self.at = (*texts, *lists)
        self.texts = tuple(_HEAD + at for at in texts)
        self.lists = tuple(_HEAD + at for at in lists)
        self.shapes: set[tuple[type, ...]] = set()

    def values(self, row: tuple[Any, ...], texts: list[Any]) -> tuple[Any, ...]:
        """Returns a row's values, with its texts in the stead of their indexes."""
        values = list(row[_HEAD:])
        for number, at in enumerate(self.at):
            values[at] = texts[number]
        return tuple(values)


class _Layouts(dict[int, _Layout]):
    """By event code, made at the first event of a type."""

    def __missing__(self, code: int) -> _Layout:
        kind = EVENT_BY_CODE.get(code)
        if kind is None:
            raise PeerError(f"event code {code}")
        made = self[code] = _Layout(kind)
        return made


_LAYOUTS: Final = _Layouts()


class Resolver:
    """Resolves rows of one batch; each actor once."""

    def __init__(self, batch: Batch, cache: ActorCache) -> None:
        self._batch = batch
        self._cache = cache
        self._actors: dict[int, Known] = {}

    def sight(self, position: int) -> Sighting:
        """Returns what a row says. Raises PeerError, IndexError or TypeError where its values aren't what the catalogue says."""
        batch, strings = self._batch, self._batch.strings
        row = batch.events[position]
        layout = _LAYOUTS[row[0]]
        texts: list[Any] = []
        size = 0
        for at in layout.texts:
            if (index := row[at]) is None:
                texts.append(None)
            else:
                texts.append(found := strings[index])
                size += len(found)
        for at in layout.lists:
            if row[at] is None:
                texts.append(None)
            else:
                texts.append(many := tuple([strings[index] for index in row[at]]))
                size += sum(map(len, many))
        if tuple([type(value) for value in row]) not in layout.shapes:
            _check(layout, row, texts)
        known = self._actors.get(row[2]) or self.known(row[2])
        return Sighting(batch.first_id + position, row, texts, size, known)

    def event(self, position: int) -> Event:
        """Returns a row as an Event. Raises as sight does."""
        return self.sight(position).event

    def known(self, index: int) -> Known:
        """Returns an actor with its chain of parents. Raises PeerError for a chain that isn't one."""
        chain: list[int] = []
        parent: Known | None = None
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


def _check(layout: _Layout, row: tuple[Any, ...], texts: list[Any]) -> None:
    if type(row[3]) is not int or type(row[4]) is not int:
        raise PeerError("malformed tid or flags")
    for field, value in zip(layout.kind.slots, layout.values(row, texts), strict=True):
        check_value(field.kind, value)
    if len(layout.shapes) < _MAX_SHAPES:
        layout.shapes.add(tuple([type(value) for value in row]))


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
    if type(group) is not bytes:
        group = actor.slots[_CGROUP]
    return Owner(uid if isinstance(uid, int) else -1, group if isinstance(group, (bytes, int)) else -1)


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
