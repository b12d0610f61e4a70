"""Which events a tail wants: by type, process, user and path. Decided on the rows of a batch, before anything is made of them."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeAlias

from execray.errors import OperatorError
from execray.schema.catalog import ACTOR_SLOT_OF, EVENT_BY_CODE, EVENT_BY_NAME, EVENTS, NO_CONTENT, Content
from execray.wire.frames import Batch, Row

MAX_GLOB_BYTES: Final = 1024
_FREQUENT: Final = frozenset(("write", "read", "sendto", "dup", "mmap", "mprotect", "prctl"))

_PATHS: Final = ("path", "rawpath", "filename")
#: Where rows have what is taken only where it is asked for.
_TAKEN_AT: Final = {
    event.code: [(5 + event.slot_of[name], kind) for name, kind in event.taken.items()]
    for event in EVENTS
    if event.taken
}
TAKEN: Final = frozenset(name for event in EVENTS for name in event.taken)
SECRETS: Final = functools.reduce(operator.or_, (kind for event in EVENTS for kind in event.taken.values()), NO_CONTENT)
# An actor's row begins with its parent.
_ID, _UID, _EUID, _EXE = (1 + ACTOR_SLOT_OF[name] for name in ("proc.id", "uid", "euid", "exe"))

Match: TypeAlias = Callable[[bytes], object]


def usual() -> frozenset[int]:
    """Returns what a tail without a choice gets: all but those of which there are more than of everything else together."""
    return frozenset(event.code for event in EVENTS if event.name not in _FREQUENT)


@cache
def _path_at(code: int) -> tuple[int, ...]:
    """Returns where a row of an event has its paths."""
    kind = EVENT_BY_CODE[code]
    return tuple(5 + kind.slot_of[name] for name in _PATHS if name in kind.slot_of)


@dataclass(frozen=True, slots=True)
class Spec:
    """What was asked for. Everything that is given must hold."""

    codes: frozenset[int] = field(default_factory=usual)
    pid: int | None = None
    uid: int | None = None  # real or effective
    exe: str | None = None  # a glob over the program's path, in which `*` goes across `/`
    name: str | None = None  # over its last component
    path: str | None = None  # over a path of the event: as the kernel has it, or as the caller wrote it


def without_content(batch: Batch, hidden: Content) -> Batch:
    """Returns a batch without some of its bytes: for policies that don't ask for them, while some tail does."""
    places = {code: [at for at, kind in slots if kind & hidden] for code, slots in _TAKEN_AT.items()}
    rows = tuple(_without(row, places[row[0]]) if row[0] in places else row for row in batch.events)
    return dataclasses.replace(batch, events=rows)


def _without(row: Row, places: list[int]) -> Row:
    return tuple(None if at in places else value for at, value in enumerate(row))


def content_of(codes: frozenset[int]) -> Content:
    """Returns all the secret bytes that events of these codes may have."""
    return _all_of(kind for code in codes for _, kind in _TAKEN_AT.get(code, ()))


def open_content_of(codes: frozenset[int]) -> Content:
    """Returns what else of events of these codes has to be asked for, and may be shown to whoever follows them."""
    return _all_of(slot.asked for code in codes for slot in EVENT_BY_CODE[code].slots)


def _all_of(kinds: Iterable[Content]) -> Content:
    return functools.reduce(operator.or_, kinds, NO_CONTENT)


def codes_of(names: list[str]) -> frozenset[int]:
    """Returns the codes of events by name or alias. Raises OperatorError for an unknown one."""
    unknown = [name for name in names if name not in EVENT_BY_NAME]
    if unknown:
        raise OperatorError(
            f"there is no event `{unknown[0]}`", f"there are {', '.join(event.name for event in EVENTS)}"
        )
    return frozenset(EVENT_BY_NAME[name].code for name in names)


def _glob(pattern: str | None) -> Match | None:
    """Raises OperatorError for a pattern that is too long. What fnmatch makes never backtracks over more than one star."""
    if pattern is None:
        return None
    raw = pattern.encode("utf-8", "surrogateescape")
    if len(raw) > MAX_GLOB_BYTES:
        raise OperatorError(f"a pattern of {len(raw)} bytes", f"{MAX_GLOB_BYTES} are the limit")
    # latin-1 has a character for every byte, so that names that aren't UTF-8 are matched byte by byte
    return re.compile(fnmatch.translate(raw.decode("latin-1")).encode("latin-1")).match


class Filter:
    """A Spec, made ready. Raises OperatorError for a pattern that can't be used."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._codes = spec.codes
        self._exe, self._name, self._path = _glob(spec.exe), _glob(spec.name), _glob(spec.path)
        self._any_actor = (spec.pid, spec.uid, spec.exe, spec.name) == (None, None, None, None)

    def wanted(self, batch: Batch) -> list[int]:
        """Returns the positions of the rows that are wanted. Raises IndexError or TypeError for a row that is malformed."""
        codes, any_actor, path = self._codes, self._any_actor, self._path
        known: dict[Any, bool] = {}
        found = []
        for position, row in enumerate(batch.events):
            if row[0] not in codes:
                continue
            if not any_actor:
                fits = known.get(row[2])
                if fits is None:
                    fits = known[row[2]] = self._actor_fits(batch.actors[row[2]], batch.strings)
                if not fits:
                    continue
            if path is not None and not self._path_fits(row, batch.strings):
                continue
            found.append(position)
        return found

    def _actor_fits(self, actor: Row, strings: tuple[bytes, ...]) -> bool:
        spec = self.spec
        if spec.pid is not None and actor[_ID][0] != spec.pid:
            return False
        if spec.uid is not None and spec.uid not in (actor[_UID], actor[_EUID]):
            return False
        if self._exe is None and self._name is None:
            return True
        exe = b"" if actor[_EXE] is None else strings[actor[_EXE]]
        if self._exe is not None and not self._exe(exe):
            return False
        return self._name is None or bool(self._name(exe.rpartition(b"/")[2]))

    def _path_fits(self, row: Row, strings: tuple[bytes, ...]) -> bool:
        assert self._path is not None
        return any(row[at] is not None and self._path(strings[row[at]]) for at in _path_at(row[0]))
