"""Makes a failing case small: tries simpler ones as long as they fail too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from tests.properties.cases import Case, Difference
from tests.properties.streams import Move

Compare: TypeAlias = Callable[[Case], Difference | None]


def shrink(failed: Difference, compare: Compare, tries: int = 20_000) -> Difference:
    """Returns the smallest failing case found within so many tries."""
    left = tries
    progress = True
    while progress and left:
        progress = False
        for simpler in _simpler(failed.case):
            left -= 1
            found = compare(simpler)
            if found is not None:
                failed, progress = found, True
                break
            if not left:
                break
    return failed


def _simpler(case: Case) -> Iterator[Case]:
    """Cases with one thing less, those that take most away first."""
    size = len(case.moves)
    chunk = size // 2
    while chunk:
        for start in range(0, size, chunk):
            yield replace(case, moves=case.moves[:start] + case.moves[start + chunk :])
        chunk //= 2
    yield from case.simpler_policies()
    if case.split != 1000:
        yield replace(case, split=1000)
    for at, move in enumerate(case.moves):
        for simpler_move in _simpler_moves(move):
            yield replace(case, moves=(*case.moves[:at], simpler_move, *case.moves[at + 1 :]))


def _simpler_moves(move: Move) -> Iterator[Move]:
    if move.who:
        yield replace(move, who=0)
    if move.cut:
        yield replace(move, cut=0)
    if move.pause_ms:
        yield replace(move, pause_ms=0)
    for at, (name, value) in enumerate(move.fields):
        if value is not None and move.what != "exec" and name != "created":
            yield replace(move, fields=(*move.fields[:at], (name, None), *move.fields[at + 1 :]))
