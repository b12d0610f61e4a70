"""Event streams for tests, written as what processes do.

    play = Play()
    shell = play.process(exe="/bin/sh", uid=1000)
    play.event("open", shell, path="/etc/shadow", flags=os.O_RDONLY, ret=3)
    child = play.fork(shell)
    play.event("connect", child, dst_ip="192.0.2.1", dst_port=443, at=2.5)
    machine.feed(play.batch())

Batches go through the real encoder and decoder of the stream.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from execray.schema.catalog import ACTOR_SLOTS, EVENT_BY_NAME, LOST, NO_FLAG, EventType, Flag
from execray.schema.event import ProcessId, user_id
from execray.schema.kinds import Kind
from execray.wire.frames import Batch, Decoder, Row, encode

START_NS = 1_000_000_000_000
TICK_NS = 1_000_000


@dataclass(eq=False)
class Proc:
    """A process; change its attributes between two events as the real one would change."""

    id: ProcessId
    parent: Proc | None
    values: dict[str, Any] = field(default_factory=dict)


class Play:
    """Collects events; each comes a millisecond after the one before it, unless it is told when."""

    def __init__(self, first_id: int = 1) -> None:
        self.now_ns = START_NS
        self._next_id = first_id
        self._seq = 0
        self._pid = 1000
        self._rows: list[tuple[EventType | None, int, list[Row], tuple[Any, ...]]] = []

    def process(self, parent: Proc | None = None, **values: Any) -> Proc:
        """Returns a process that has been there; values are actor fields, `_` for the dots in their names."""
        self._pid += 1
        inherited = dict(parent.values) if parent else {}
        fields = {
            "uid": 1000,
            "euid": 1000,
            "suid": 1000,
            "gid": 1000,
            "egid": 1000,
            "cgroup.id": 1,
            "comm": "test",
            "exe": "/usr/bin/test",
            "argv": ["test"],
        }
        own = {_canonical(ACTOR_SLOTS, name): value for name, value in values.items()}
        return Proc((self._pid, START_NS + self._pid), parent, {**fields, **inherited, **own})

    def event(
        self,
        name: str,
        actor: Proc,
        *,
        at: float | None = None,
        tid: int | None = None,
        cut: Flag = NO_FLAG,
        **slots: Any,
    ) -> int:
        """Adds an event and returns its id. at: seconds since the play began; cut: the flags of its capture."""
        kind = EVENT_BY_NAME[name]
        values: list[Any] = [None] * len(kind.slots)
        for key, value in slots.items():
            values[kind.slot_of[_canonical(kind.slots, key)]] = value
        chain: list[Row] = []
        proc: Proc | None = actor
        while proc is not None:
            facts = {"user.id": user_id(proc.values.get("loginuid"), proc.values.get("uid")), **proc.values}
            chain.append((proc.id, *(facts.get(slot.name) for slot in ACTOR_SLOTS[1:])))
            proc = proc.parent
        tail = (tid if tid is not None else actor.id[0], int(cut), *values)
        return self._add(kind, at, chain, tail)

    def lost(self, count: int = 1, where: str = "ring", *, at: float | None = None) -> int:
        """Adds a loss and returns its row's id."""
        return self._add(None, at, [], (where, count, self.now_ns))

    def fork(self, actor: Proc, *, at: float | None = None, **values: Any) -> Proc:
        """Adds a fork and returns the child, which has its creator's fields but for those given."""
        child = self.process(actor, **values)
        self.event("fork", actor, at=at, child_id=child)
        return child

    def exit(self, actor: Proc, *, at: float | None = None) -> int:
        """Adds the end of a process and returns the event's id."""
        return self.event("exit", actor, at=at, exit_code=0, signal=0)

    def batch(self) -> Batch:
        """Returns what was added since the last call."""
        batches = self.batches(max(1, len(self._rows)))
        return batches[0] if batches else _through_the_wire(Batch(self._seq, self._next_id, (), (), ()))

    def batches(self, size: int) -> list[Batch]:
        """Returns what was added since the last call, in batches of that many events."""
        rows, self._rows = self._rows, []
        first = self._next_id - len(rows)
        out = []
        for start in range(0, len(rows), size):
            self._seq += 1
            out.append(_through_the_wire(_pack(self._seq, first + start, rows[start : start + size])))
        return out

    def _add(self, kind: EventType | None, at: float | None, chain: list[Row], tail: tuple[Any, ...]) -> int:
        self.now_ns = self.now_ns + TICK_NS if at is None else START_NS + round(at * 1e9)
        self._rows.append((kind, self.now_ns, chain, tail))
        self._next_id += 1
        return self._next_id - 1


class _Tables:
    """The string and actor tables of one batch."""

    def __init__(self) -> None:
        self.strings: dict[bytes, int] = {}
        self.actors: dict[Row, int] = {}

    def value(self, kind: Kind, value: Any) -> Any:
        if isinstance(value, Proc):
            return value.id
        if value is None:
            return None
        if kind is Kind.IP and isinstance(value, str):
            value = ipaddress.ip_address(value).packed
        if kind.is_text:
            return self._string(value)
        if kind is Kind.TEXTS:
            return tuple(self._string(item) for item in value)
        return value

    def actor(self, chain: list[Row]) -> int:
        parent: int | None = None
        for slots in reversed(chain):
            row = (parent, *(self.value(slot.kind, v) for slot, v in zip(ACTOR_SLOTS, slots, strict=True)))
            parent = self.actors.setdefault(row, len(self.actors))
        assert parent is not None
        return parent

    def _string(self, value: str | bytes) -> int:
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        return self.strings.setdefault(raw, len(self.strings))


def _pack(seq: int, first_id: int, rows: list[tuple[EventType | None, int, list[Row], tuple[Any, ...]]]) -> Batch:
    tables = _Tables()
    events: list[Row] = []
    for kind, time_ns, chain, tail in rows:
        if kind is None:
            events.append((LOST, time_ns, *tail))
            continue
        tid, flags, *values = tail
        slots = [tables.value(slot.kind, value) for slot, value in zip(kind.slots, values, strict=True)]
        events.append((kind.code, time_ns, tables.actor(chain), tid, flags, *slots))
    return Batch(seq, first_id, tuple(tables.strings), tuple(tables.actors), tuple(events))


def _through_the_wire(batch: Batch) -> Batch:
    (frame,) = Decoder().feed(encode(batch))
    assert isinstance(frame, Batch)
    return frame


def _canonical(slots: tuple[Any, ...], name: str) -> str:
    for slot in slots:
        if name in (slot.name, slot.name.replace(".", "_"), *slot.aliases):
            return str(slot.name)
    raise KeyError(name)
