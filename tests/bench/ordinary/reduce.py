"""From what a whole host did to what may be kept: only the work's own processes, no hosts' names, little twice over."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, cast

from execray.eventfile import record_of
from execray.schema.catalog import ACTOR_SLOT_OF, EVENT_BY_CODE, EVENT_BY_NAME, LOST
from execray.schema.event import Actor, Event, ProcessId
from execray.wire.frames import Batch
from policyd.workbench.replay import Found, Replay

Record = dict[str, Any]

#: The program that does the work; all that descends from it is kept.
ROOT_ARGUMENT: Final = b"/run/work/all.sh"
#: What begins every line of creators, in the stead of whoever started the recording.
INIT: Final[Record] = {"proc.id": "1-0", "uid": 0, "euid": 0, "comm": "systemd", "exe": "/usr/lib/systemd/systemd"}
#: How often a program may do the same thing, and how often it may begin or end.
KEPT: Final = 2
KEPT_PROCESSES: Final = 20
LIVES: Final = frozenset({"exec", "fork", "exit"})

_EXEC: Final = EVENT_BY_NAME["exec"].code
_FORK: Final = EVENT_BY_NAME["fork"].code
_ARGV: Final = ACTOR_SLOT_OF["argv"]
_EXE: Final = 1 + ACTOR_SLOT_OF["exe"]  # in an actor's row
_HEAD: Final = 5  # elements of an event's row before its slots
_HOST: Final = re.compile(r"(?<![\w.-])(?:[a-z0-9-]+\.)+(?:org|com|net)(?![a-z0-9.-])", re.IGNORECASE)


class Work:
    """The work's own processes, found while the batches pass by."""

    def __init__(self) -> None:
        self.processes: set[ProcessId] = set()
        self.events = 0
        self.lost = 0

    def rows(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, int]]:
        """Yields where they stand."""
        for batch in batches:
            for position, row in enumerate(batch.events):
                if row[0] == LOST:
                    self.lost += row[3]
                    continue
                who = batch.actors[row[2]][1]
                if who not in self.processes:
                    if self.processes or row[0] != _EXEC or ROOT_ARGUMENT not in _arguments(batch.event(position)):
                        continue
                    self.processes.add(who)
                if row[0] == _FORK:
                    self.processes.add(cast(ProcessId, batch.event(position).get("child.id")))
                self.events += 1
                yield batch, position

    def record(self, event: Event) -> Record:
        """Returns an event, its line of creators cut above the work."""
        record = record_of(event)
        line = zip(_creators(event), record.get("ancestor", ()), strict=True)
        inside = [shown for creator, shown in line if creator.id in self.processes]
        record["ancestor"] = [*(shown for shown in inside if not _is_scaffold(shown)), INIT]
        for shown in (record, *record["ancestor"]):
            self._cut_leaders(shown)
        return record

    def _cut_leaders(self, shown: Record) -> None:
        """Whoever leads the session or group from outside of the work is init, too."""
        for group in ("session", "pgrp"):
            leader, program = shown.get(f"{group}.id"), f"{group}.leader.exe"
            if program in shown and (leader is None or _process_of(leader) not in self.processes):
                shown[program] = INIT["exe"]


def _process_of(text: str) -> ProcessId:
    pid, _, start_ns = text.partition("-")
    return int(pid), int(start_ns)


def _is_scaffold(actor: Record) -> bool:
    """Whether it is one of those who only see to it that the work is done."""
    argv = actor.get("argv", [])
    return argv[:1] == ["timeout"] or os.fsdecode(ROOT_ARGUMENT) in argv


def _arguments(event: Event) -> tuple[Any, ...]:
    found = event.actor.slots[_ARGV]
    return found if isinstance(found, tuple) else ()


def _creators(event: Event) -> Iterator[Actor]:
    at = event.actor.parent
    while at is not None:
        yield at
        at = at.parent


def thinned(rows: Iterable[tuple[Batch, int]], replay: Replay, found: list[Found]) -> Iterator[tuple[Batch, int]]:
    """Yields all but what a program does over and over: the same thing, in the same folder, with the same success.

    Every event is kept that meets a step of the replayed policies where that is awaited, so that nothing is hidden. found: gets
    what they find in all of the work.
    """
    seen: Counter[tuple[Any, ...]] = Counter()
    for batch, position in rows:
        row = batch.events[position]
        fired = replay.machine.stats()["fired"]
        alone = dataclasses.replace(batch, first_id=batch.first_id + position, events=(row,))
        found += replay.run([alone])
        key = _likeness(batch, row)
        seen[key] += 1
        if replay.machine.stats()["fired"] > fired or seen[key] <= (KEPT_PROCESSES if key[0] in LIVES else KEPT):
            yield batch, position


def _likeness(batch: Batch, row: tuple[Any, ...]) -> tuple[Any, ...]:
    actor, kind, value = batch.actors[row[2]], EVENT_BY_CODE[row[0]], partial(_value, batch, row)
    path = value("path") or value("rawpath") or value("filename") or b""
    access = (value("flags") or 0) & os.O_ACCMODE if kind.name == "open" else 0
    exe = None if actor[_EXE] is None else batch.strings[actor[_EXE]]
    return kind.name, exe, path.rpartition(b"/")[0], access, (value("ret") or 0) < 0


def _value(batch: Batch, row: tuple[Any, ...], name: str) -> Any:
    kind = EVENT_BY_CODE[row[0]]
    at = kind.slot_of.get(name)
    if at is None or row[_HEAD + at] is None:
        return None
    return batch.strings[row[_HEAD + at]] if kind.slots[at].kind.is_text else row[_HEAD + at]


class Cloak:
    """Replaces hosts' names, and addresses outside of this host, by ones that are nobody's."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def record(self, record: Record) -> Record:
        """Returns the record without them."""
        return {name: self._value(name, value) for name, value in record.items()}

    def _value(self, name: str, value: Any) -> Any:
        match value:
            case str() if name.endswith(".ip"):
                return self._address(value)
            case str():
                return _HOST.sub("packages.example", value)
            case list():
                return [self._value(name, item) for item in value]
            case dict():
                return self.record(value)
            case _:
                return value

    def _address(self, text: str) -> str:
        address = ipaddress.ip_address(text)
        if address.is_loopback or address.is_unspecified:
            return text
        at = 1 + len(self._addresses) % 250
        new = f"198.51.100.{at}" if address.version == 4 else f"2001:db8::{at:x}"
        return self._addresses.setdefault(text, new)


def reduced(work: Work, batches: Iterable[Batch], replay: Replay, found: list[Found]) -> Iterator[Record]:
    """Yields what may be kept of what the work did, numbered anew. found: gets what the policies find in all of it."""
    cloak = Cloak()
    for number, (batch, position) in enumerate(thinned(work.rows(batches), replay, found), 1):
        yield {**cloak.record(work.record(batch.event(position))), "id": number}
