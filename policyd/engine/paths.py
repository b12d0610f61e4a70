"""Which exact paths the sensor is to know the files of."""

from __future__ import annotations

from collections.abc import Iterable

from execray.wire.frames import MAX_PATH_BYTES, MAX_PATHS
from policyd.program import CompiledPolicy


def bounded_paths(policies: Iterable[CompiledPolicy]) -> tuple[tuple[bytes, ...], int]:
    """Returns the paths that policies match by file, the first policies' first, and how many there are beyond the bound."""
    wanted = dict.fromkeys(path for policy in policies for path in policy.paths_by_file)
    taken: list[bytes] = []
    room = MAX_PATH_BYTES
    for path in wanted:
        if len(taken) < MAX_PATHS and len(path) <= room:
            taken.append(path)
            room -= len(path)
    return tuple(taken), len(wanted) - len(taken)
