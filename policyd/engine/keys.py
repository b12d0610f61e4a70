"""Keys over fields: what the events of one sequence have in common, read from a batch's rows without making Events of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias

from execray.errors import PeerError
from execray.schema.catalog import ACTOR_FIELD_BY_NAME, ACTOR_SLOT_OF, EVENT_BY_CODE, EventType, Field
from execray.schema.event import DERIVE, Value, age_ns, creator_field
from execray.schema.kinds import Kind
from execray.wire.frames import Batch
from policyd.engine.conditions import pick
from policyd.engine.evidence import resolve
from policyd.program import FieldRef

#: A process and its start, or the values of a step's key fields.
Key: TypeAlias = tuple[Any, ...]

_Row: TypeAlias = tuple[Any, ...]
_Read: TypeAlias = Callable[[Batch, _Row], Value]

_DIGEST_BYTES: Final = 32
_EVENT_HEAD: Final = 5  # elements of an event's row before its slots
_ACTOR_HEAD: Final = 1
_AGE: Final = "proc.age"


def compact(value: Value) -> Hashable:
    """Returns a value to count by: of a long one its digest, so that what is held stays within a bound."""
    # A digest stands in a tuple, so that no text can be taken for the digest of another.
    if isinstance(value, bytes) and len(value) > _DIGEST_BYTES:
        return (hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest(),)
    if isinstance(value, tuple) and any(isinstance(item, bytes) for item in value):
        joined = b"".join(len(item).to_bytes(4) + item for item in value if isinstance(item, bytes))
        return (hashlib.blake2b(joined, digest_size=_DIGEST_BYTES).digest(),)
    return value


class KeyFunction:
    """Computes the key of an event, as one step has it."""

    def __init__(self, refs: tuple[FieldRef, ...]) -> None:
        self._refs = refs
        self._reads: dict[int, tuple[_Read, ...] | None] = {}

    def key(self, batch: Batch, row: _Row) -> Key | None:
        """Returns the values; None where one is missing, also because this kind of event has no such field.

        Raises PeerError for a value that isn't what the catalogue says.
        """
        reads = self._reads.get(row[0])
        if reads is None:
            if row[0] in self._reads:
                return None
            self._reads[row[0]] = _readers(self._refs, EVENT_BY_CODE[row[0]])
            return self.key(batch, row)
        if len(reads) == 1:
            value = reads[0](batch, row)
            return None if value is None else (value,)
        values = tuple([read(batch, row) for read in reads])
        return None if None in values else values


def _readers(refs: tuple[FieldRef, ...], kind: EventType) -> tuple[_Read, ...] | None:
    reads = [_reader(ref, kind) for ref in refs]
    found = tuple(read for read in reads if read is not None)
    return found if len(found) == len(reads) else None


def _reader(ref: FieldRef, kind: EventType) -> _Read | None:
    if ref.name in _OF_HEAD:
        return _OF_HEAD[ref.name]
    of_creator = creator_field(ref.name)
    if of_creator is not None:
        steps, name = of_creator
        creators = ACTOR_FIELD_BY_NAME.get(name)
        return _age_of(steps) if name == _AGE else _of_actor(ref, creators, steps) if creators is not None else None
    field = kind.by_name.get(ref.name)
    if field is None:
        return None
    slot = field.derived or field.name
    if slot not in kind.slot_of:
        return _of_actor(ref, field, 0)
    position, stored = _EVENT_HEAD + kind.slot_of[slot], kind.by_name[slot].kind
    if stored.is_text and not field.derived and ref.index is None:
        return lambda batch, row: None if row[position] is None else batch.strings[row[position]]
    derive = _derivation(field)
    return lambda batch, row: pick(ref, derive(resolve(stored, row[position], batch.strings)))


def _of_actor(ref: FieldRef, field: Field, steps: int) -> _Read:
    slot = field.derived or field.name
    position, stored = _ACTOR_HEAD + ACTOR_SLOT_OF[slot], ACTOR_FIELD_BY_NAME[slot].kind
    if stored is Kind.PROCESS and not field.derived:
        return _process_of_actor(position, steps)
    derive = _derivation(field)

    def read(batch: Batch, row: _Row) -> Value:
        actor = _actor_at(batch, row, steps)
        return None if actor is None else pick(ref, derive(resolve(stored, actor[position], batch.strings)))

    return read


def _process_of_actor(position: int, steps: int) -> _Read:
    if not steps:
        return lambda batch, row: _process(batch.actors[row[2]][position])

    def read(batch: Batch, row: _Row) -> Value:
        actor = _actor_at(batch, row, steps)
        return None if actor is None else _process(actor[position])

    return read


def _actor_at(batch: Batch, row: _Row, steps: int) -> _Row | None:
    """Returns the event's actor, or who stands so many steps up its line; None past the end. Raises PeerError."""
    actor: _Row = batch.actors[row[2]]
    if steps > len(batch.actors):
        return None
    for _ in range(steps):
        if actor[0] is None:
            return None
        if type(actor[0]) is not int or not 0 <= actor[0] < len(batch.actors):
            raise PeerError(f"batch {batch.seq} refers to actor {actor[0]!r}")
        actor = batch.actors[actor[0]]
    return actor


def _age_of(steps: int) -> _Read:
    def read(batch: Batch, row: _Row) -> Value:
        actor = _actor_at(batch, row, steps)
        if actor is None:
            return None
        _process(actor[_ACTOR_HEAD])  # or it's the peer's error
        return age_ns(row[1], actor[_ACTOR_HEAD])

    return read


def _process(raw: Any) -> Value:
    # Without the detour by which texts are looked up: most keys over fields of the actor name a process.
    if raw is not None and type(raw) is not tuple:
        raise PeerError(f"a process id came as {type(raw).__name__}")
    found: Value = raw
    return found


_OF_HEAD: Final[dict[str, _Read]] = {"tid": lambda batch, row: row[3], _AGE: _age_of(0)}


def _derivation(field: Field) -> Callable[[Value], Value]:
    return DERIVE[field.name] if field.derived else lambda value: value
