"""Objects that packages bring for events of their own: loaded beside ours, attached by plan, and never in the way of ours."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from execray.schema.catalog import EVENTS, EventType
from execray.schema.extension import MAX_HANDLED
from tracerd.bpf import Map
from tracerd.loader import BpfObject, LoadError, SharedMaps, load
from tracerd.shapes import kernel_number

#: Of bpf/include/execray/own.h.
_KINDS: Final = "er_own_kinds"
_COST: Final = "its events are not seen"


@dataclass(slots=True)
class _Other:
    """One object of a package, with the events that it gives, in the order of the package's table."""

    package: str
    file: Path
    events: list[EventType] = field(default_factory=list)
    loaded: BpfObject | None = None
    kinds: Map | None = None
    refused: str = ""


class Others:
    """All of them. What is wrong with one is said of that one, and of its events."""

    def __init__(self, shared: SharedMaps) -> None:
        """Loads the objects of this process's catalogue."""
        self._others: dict[str, _Other] = {}
        for event in EVENTS:
            if event.handler:
                known = self._others.setdefault(event.handler, _Other(event.package, Path(event.handler)))
                known.events.append(event)
        for other in self._others.values():
            other.events.sort(key=lambda event: event.place)
            try:
                other.loaded = load(other.file.name.removesuffix(".bpf.o"), other.file.parent)
                other.loaded.share(shared)
                other.kinds = _kinds(other.loaded)
            except (LoadError, OSError) as error:
                other.refused = error.message if isinstance(error, LoadError) else str(error)
                self._close(other)

    def want(self, codes: frozenset[int]) -> list[str]:
        """Attaches what gives these events, and detaches the rest; returns what the kernel refused of it."""
        return [
            f"{other.package}: {other.refused}" for other in self._others.values() if not self._follow(other, codes)
        ]

    def _follow(self, other: _Other, codes: frozenset[int]) -> bool:
        wanted = [event for event in other.events if event.code in codes]
        if other.loaded is None or other.kinds is None:
            return not wanted
        for event in other.events:
            number = kernel_number(event.code) if event in wanted else 0
            other.kinds.update(struct.pack("<I", event.place), struct.pack("<I", number))
        other.refused = ""
        for program in other.loaded.programs.values():
            if not wanted:
                program.detach()
                continue
            try:
                program.attach()
            except LoadError as error:
                other.refused = error.message
        return not other.refused

    def hook(self, event: EventType, wanted: Iterable[int]) -> dict[str, Any]:
        """Returns what Sensor.hooks says of one of these events."""
        other = self._others[event.handler]
        needed = event.code in wanted
        attached = other.loaded is not None and all(program.attached for program in other.loaded.programs.values())
        return {"needed": needed, "attached": needed and attached, "refused": other.refused}

    def misses(self) -> dict[str, int]:
        """Returns by program how often the kernel skipped it; those of one name in two objects together."""
        out = Counter[str]()
        for program in (p for o in self._loaded() for p in o.programs.values()):
            out[program.name] += program.info().recursion_misses
        return dict(out)

    def doctor(self) -> Iterator[dict[str, Any]]:
        """Yields a report on each object and its programs."""
        for other in self._others.values():
            programs = other.loaded.report() if other.loaded is not None else []
            name = f"{other.file.name} ({other.package})"
            loaded = other.loaded is not None
            yield {"object": name, "loaded": loaded, "refused": other.refused, "cost": _COST, "programs": programs}

    def close(self) -> None:
        """Detaches and unloads everything."""
        for other in self._others.values():
            self._close(other)

    def _loaded(self) -> Iterator[BpfObject]:
        return (other.loaded for other in self._others.values() if other.loaded is not None)

    @staticmethod
    def _close(other: _Other) -> None:
        if other.loaded is not None:
            other.loaded.close()
        other.loaded = other.kinds = None


def _kinds(loaded: BpfObject) -> Map:
    """Returns the map by which an object learns what its events are called. Raises LoadError for one of another making."""
    fd = loaded.map_fd(_KINDS)
    if fd is None:
        raise LoadError(f"{loaded.name}.bpf.o has no map {_KINDS}", "build it against execray/own.h")
    return Map(fd, 4, 4, MAX_HANDLED)
