"""Events to records of an event file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from execray.schema.catalog import ACTOR_SLOTS, Flag
from execray.schema.event import Actor, Event, value_to_json

#: The name of the record that stands for events that never came.
LOST_EVENT = "lost"


def record_of(event: Event, *, ancestors: bool = True) -> dict[str, Any]:
    """Returns an event with everything it carries: what is missing is left out, what is computed from the rest too.

    ancestors: whether with the creators' line, which a policy may need and a reader seldom does.
    """
    out: dict[str, Any] = {"event": event.type.name, "id": event.id, "time_ns": event.time_ns, "tid": event.tid}
    if event.flags:
        out["capture_flags"] = [flag.name.lower() for flag in Flag if flag in event.flags and flag.name]
    for field, value in zip(event.type.slots, event.slots, strict=True):
        if value is not None:
            out[field.name] = value_to_json(field, value)
    out |= _actor(event.actor)
    line = list(_creators(event.actor)) if ancestors else []
    if line:
        out["ancestor"] = line
    return out


def _creators(actor: Actor) -> Iterator[dict[str, Any]]:
    parent = actor.parent
    while parent is not None:
        yield _actor(parent)
        parent = parent.parent


def lost_record(record_id: int, where: str, count: int, since_ns: int, time_ns: int) -> dict[str, Any]:
    """Returns the record for `count` events that were dropped at `where` between two instants (CLOCK_BOOTTIME)."""
    return {
        "event": LOST_EVENT,
        "id": record_id,
        "time_ns": time_ns,
        "where": where,
        "count": count,
        "since_ns": since_ns,
    }


def _actor(actor: Actor) -> dict[str, Any]:
    pairs = zip(ACTOR_SLOTS, actor.slots, strict=True)
    return {field.name: value_to_json(field, value) for field, value in pairs if value is not None}
