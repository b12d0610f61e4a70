"""Which exact paths the sensor is to know the files of."""

from __future__ import annotations

from collections.abc import Iterable

from execray.wire.frames import MAX_PATH_BYTES, MAX_PATHS


def bounded_paths(paths: Iterable[Iterable[bytes]]) -> tuple[tuple[bytes, ...], int]:
    """Returns, of the paths that each policy matches by file, the first ones, and how many there are beyond the bound."""
    wanted = dict.fromkeys(path for some in paths for path in some)
    taken: list[bytes] = []
    room = MAX_PATH_BYTES
    for path in wanted:
        if len(taken) < MAX_PATHS and len(path) <= room:
            taken.append(path)
            room -= len(path)
    return tuple(taken), len(wanted) - len(taken)
