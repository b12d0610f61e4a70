"""An event in its surroundings: what waits where it can be touched."""

from __future__ import annotations

from typing import NamedTuple

from execray.schema.event import Event
from policyd.engine.evidence import Sighting
from policyd.engine.keys import Key
from policyd.engine.scopes import Scope
from policyd.engine.shares import Owner
from policyd.engine.table import PolicyTable
from policyd.program import KeyKind


class Keyed(NamedTuple):
    """The key that an event has for some steps over fields, by bit, and what waits under it."""

    bits: int
    key: Key
    scope: Scope | None


class Moment:
    """An event, and what it can touch.

    now_ns: the clock. scope: what waits in the actor's process. trees: what waits in the trees that the actor is in, its own
    first. keyed: its keys over fields. losses: how many gaps there have been so far. weight: of the event as evidence. owner: of
    what it begins.
    """

    __slots__ = ("event", "generation", "keyed", "losses", "now_ns", "owner", "scope", "sighting", "trees", "weight")

    def __init__(
        self,
        sighting: Sighting,
        now_ns: int,
        generation: int,
        losses: int,
        scope: Scope | None,
        trees: list[Scope],
        keyed: list[Keyed],
    ) -> None:
        self.sighting = sighting
        self.now_ns = now_ns
        self.generation = generation
        self.losses = losses
        self.scope = scope
        self.trees = trees
        self.keyed = keyed
        self.event: Event = sighting.event
        self.weight: int = sighting.weight
        self.owner: Owner = sighting.known.owner

    def reach(self, table: PolicyTable, fired: int) -> list[tuple[Scope, int]]:
        """Returns where partials of a policy may be that the event can touch, and by which of the fired steps."""
        match table.policy.key:
            case KeyKind.PROCESS:
                return [(self.scope, fired)] if self.scope is not None else []
            case KeyKind.TREE:
                return [(tree, fired) for tree in self.trees]
            case KeyKind.FIELDS:
                found: dict[Key, tuple[Scope, int]] = {}
                for bits, key, scope in self.keyed:
                    steps = bits >> table.base & fired
                    if scope is not None and steps:
                        found[key] = scope, steps | found.get(key, (scope, 0))[1]
                return list(found.values())

    def start_key(self, table: PolicyTable, step: int) -> Key:
        """Returns the key of a partial that begins with a step which has fired."""
        if table.policy.key is not KeyKind.FIELDS:
            return self.event.actor.id
        return next(key for bits, key, _ in self.keyed if bits >> table.base >> step & 1)
