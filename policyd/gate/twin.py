"""The gate as a function of decoded events: what the kernel would make of each, for tests and for figures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from execray.gate.plan import ALL_BITS, GatePlan, Input
from execray.gate.verdict import Facts, PathState, candidates, possible
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


@dataclass(slots=True)
class _Cell:
    """The bits that were opened in one place, and until when they count; None: without end."""

    bits: int = 0
    until_ns: int | None = 0

    def open(self, bits: int, time_ns: int, window_ns: int | None) -> None:
        self.bits |= bits
        if window_ns is None or self.until_ns is None:
            self.until_ns = None
        else:
            self.until_ns = max(self.until_ns, time_ns + window_ns)

    def awaits(self, time_ns: int) -> int:
        return self.bits if self.until_ns is None or self.until_ns >= time_ns else 0


class Gate:
    """The gate with its memory of what has begun. Nothing in it is forgotten but by time, and by a new plan."""

    def __init__(self, plan: GatePlan, since_ns: int = 0) -> None:
        """since_ns: when the plan came. What began before that isn't known, so for as long as it may live all passes."""
        self._plan = plan
        self._half_open = _Cell()
        self._half_open.open(ALL_BITS, since_ns, plan.window_ns)
        self._host = _Cell()
        self._cells: dict[ProcessId, _Cell] = {}

    def passes(self, event: Event) -> bool:
        """Whether the kernel would send the event; to be asked once for each, in their order."""
        plan, at, facts = self._plan, event.time_ns, facts_of(event)
        found = possible(plan, facts)
        cell = self._cells.get(event.actor.id)
        awaited = plan.rows[plan.first] | self._host.awaits(at) | self._half_open.awaits(at)
        awaited |= cell.awaits(at) if cell is not None else 0
        for bit, row in plan.opens.items():
            if found >> bit & 1:
                self._open(bit, plan.rows[row], event)
        return facts.code in plan.open_codes or found & awaited != 0

    def _open(self, bit: int, bits: int, event: Event) -> None:
        plan = self._plan
        for_all = plan.rows[plan.host] >> bit & 1
        cell = self._host if for_all else self._cells.setdefault(event.actor.id, _Cell())
        cell.open(bits, event.time_ns, plan.window_ns)


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
    return Facts(code, state, path, comm if isinstance(comm, bytes) else None, numbers)


def path_of(event: Event) -> tuple[PathState, bytes]:
    """Returns what the kernel knew of an event's path: of a file that is open only, and only where the walk was whole."""
    by_name = event.type.name != "open" and event.type.by_name.get("rawpath") is not None
    if not is_gated(event.type.code) or not has_path(event.type.code) or by_name or event.flags & PATH_UNSURE:
        return PathState.UNKNOWN, b""
    if FILE_NAMES_NAME in event.type.slot_of and event.get(FILE_NAMES_NAME):
        return PathState.UNKNOWN, b""
    value = event.get("path")
    if value is None:
        return PathState.UNKNOWN if event.flags & Flag.UNREADABLE else PathState.MISSING, b""
    assert isinstance(value, bytes)
    if value.startswith(b"/"):
        return PathState.KNOWN, value
    return PathState.NAMELESS if _NAMELESS.fullmatch(value) else PathState.UNKNOWN, b""
