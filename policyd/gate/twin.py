"""The gate as a function of decoded events: what the kernel would make of each, for tests and for figures."""

from __future__ import annotations

import re
from typing import Final

from execray.gate.addresses import place_of
from execray.gate.memory import Memory
from execray.gate.plan import ADDRESSES, GatePlan, Input
from execray.gate.verdict import Facts, PathState, candidates
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.event import Event, ProcessId
from execray.schema.field import PATH_UNSURE, Flag
from execray.schema.row import FILE_NAMES_NAME
from policyd.engine.planning import ACTOR, SlotKey
from policyd.gate.ways import has_path, input_of, is_gated

_NAMELESS: Final = re.compile(rb"(?:pipe|socket):\[[0-9]+\]")


def passes(plan: GatePlan, event: Event) -> bool:
    """Whether the kernel would send the event, whatever is awaited."""
    found = candidates(plan, facts_of(event))
    return found is None or found != 0


class Gate:
    """The gate with its memory of what has begun, which ends by time, by the end of a process, and by a new plan."""

    def __init__(self, plan: GatePlan, since_ns: int = 0) -> None:
        """since_ns: when the plan came."""
        self.memory = Memory(plan, since_ns)
        self._ended: set[ProcessId] = set()
        self._latest: dict[int, ProcessId] = {}  # by pid

    def passes(self, event: Event) -> bool:
        """Whether the kernel would send the event; to be asked once for each, in their order."""
        pid = event.actor.id[0]
        if (former := self._latest.setdefault(pid, event.actor.id)) != event.actor.id:
            self._ended.add(former)  # nobody has a pid that another one still has
            self._latest[pid] = event.actor.id
        if event.type.code == _EXIT:
            self.memory.ended(pid)
            self._ended.add(event.actor.id)
        passes = self.memory.passes(facts_of(event), pid, event.time_ns)
        return passes or event.actor.id in self._ended  # what an io_uring completes while its process ends


#: Of a path that begins at a mount in nobody's tree all components are known, and the engine goes by these.
_UNSURE: Final = PATH_UNSURE & ~Flag.PATH_DETACHED
_EXIT: Final = EVENT_BY_NAME["exit"].code


def facts_of(event: Event) -> Facts:
    """Returns what the kernel had of an event."""
    code = event.type.code
    state, path = path_of(event)
    comm = event.get("comm")
    numbers: dict[Input, int] = {}
    for name in (*event.type.slot_of, "uid", "euid"):
        which = input_of(SlotKey(code if name in event.type.slot_of else ACTOR, name), code)
        value = event.get(name) if which is not None else None
        if which is not None and isinstance(value, int):
            numbers[which] = int(value)
        elif which in ADDRESSES and isinstance(value, bytes):
            numbers[which] = place_of(value)
    names = event.get(FILE_NAMES_NAME) if FILE_NAMES_NAME in event.type.slot_of else None
    named = tuple(name for name in names if isinstance(name, bytes)) if isinstance(names, tuple) else ()
    return Facts(code, state, path, comm if isinstance(comm, bytes) else None, numbers, named)


def path_of(event: Event) -> tuple[PathState, bytes]:
    """Returns what the kernel knew of an event's path: of a file that is open only, and only where the walk was whole."""
    by_name = event.type.name not in ("open", "create") and event.type.by_name.get("rawpath") is not None
    if not is_gated(event.type.code) or not has_path(event.type.code) or by_name or event.flags & _UNSURE:
        return PathState.UNKNOWN, b""
    value = event.get("path")
    if value is None:
        return PathState.UNKNOWN if event.flags & Flag.UNREADABLE else PathState.MISSING, b""
    assert isinstance(value, bytes)
    if value.startswith(b"/"):
        return PathState.KNOWN, value
    return PathState.NAMELESS if _NAMELESS.fullmatch(value) else PathState.UNKNOWN, b""
