"""An event in its surroundings: what waits where it can be touched."""

from __future__ import annotations

from execray.schema.event import Event
from policyd.engine.evidence import Sighting
from policyd.engine.keys import Key
from policyd.engine.scopes import Scope
from policyd.engine.shares import Owner
from policyd.engine.table import PolicyTable


class Keyed:
    """The key that an event has for some steps over fields, by bit, and what waits under it."""

    __slots__ = ("bits", "key", "scope")

    def __init__(self, bits: int, key: Key, scope: Scope | None) -> None:
        self.bits = bits
        self.key = key
        self.scope = scope


class Moment:
    """An event, and what it can touch.

    now_ns: the clock. scope: what waits in the actor's process. trees: what waits in the trees that the actor is in, its own
    first. keyed: its keys over fields. losses: how many gaps there have been so far. weight: of the event as evidence. owner: of
    what it begins. missing: the actor's slots without a value, as bits; -1 where the event has flags.
    """

    __slots__ = (
        "event",
        "generation",
        "keyed",
        "losses",
        "missing",
        "now_ns",
        "owner",
        "process",
        "scope",
        "sighting",
        "trees",
        "weight",
    )

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
        known = sighting.known
        self.sighting = sighting
        self.now_ns = now_ns
        self.generation = generation
        self.losses = losses
        self.scope = scope
        self.trees = trees
        self.keyed = keyed
        self.event: Event = sighting.event
        self.weight: int = sighting.weight
        self.owner: Owner = known.owner
        self.process: Key = known.id
        self.missing: int = -1 if sighting.flagged else known.missing

    def reach(self, table: PolicyTable, fired: int) -> list[tuple[Scope, int]]:
        """Returns where partials of a policy may be that the event can touch, and by which of the fired steps."""
        if table.by_tree:
            return [(tree, fired) for tree in self.trees]
        if not table.by_fields:
            return [(self.scope, fired)] if self.scope is not None else []
        found: dict[Key, tuple[Scope, int]] = {}
        for keyed in self.keyed:
            steps = keyed.bits >> table.base & fired
            if steps and keyed.scope is not None:
                before = found.get(keyed.key)
                found[keyed.key] = keyed.scope, steps if before is None else steps | before[1]
        return list(found.values())

    def start_key(self, table: PolicyTable, step: int) -> Key:
        """Returns the key of a partial that begins with a step which has fired."""
        if not table.by_fields:
            return self.process
        for keyed in self.keyed:
            if keyed.bits >> table.base + step & 1:
                return keyed.key
        raise AssertionError("a step without a key has fired")  # Machine._keyed leaves no bit of it
