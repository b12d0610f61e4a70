"""Names of users, by the host's own list. No other source is asked: an answer that takes seconds would hold up every event."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

#: A larger list is read to here.
MAX_BYTES: Final = 4 * 1024 * 1024
#: How long a change of the list may stay unseen.
FRESH_S: Final = 1.0
_FIELDS: Final = 7
_UID: Final = 2
_UID_DIGITS: Final = 10  # of 2**32; int() raises for thousands of them


class Users:
    """The users of /etc/passwd. Looks whether it has changed when it is asked, at most once in FRESH_S."""

    def __init__(self, path: Path = Path("/etc/passwd"), clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock_s = clock_s
        self._names: dict[int, bytes] = {}
        self._looked_s = float("-inf")
        self._known: tuple[int, ...] = ()  # which file that was

    def name(self, uid: int | None) -> bytes | None:
        """Returns a user's name, the first of several, as getpwuid has it; None for one who isn't on the list."""
        now_s = self._clock_s()
        if now_s - self._looked_s >= FRESH_S:
            self._looked_s = now_s
            self._look()
        return None if uid is None else self._names.get(uid)

    def _look(self) -> None:
        """Reads the list if it is another. One that can't be read leaves what was known."""
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            known = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
            if known != self._known:
                self._names = users_of(file.read(MAX_BYTES))
                self._known = known


def users_of(passwd: bytes) -> dict[int, bytes]:
    """Returns names by uid, given the text of a list as passwd(5) has it. What is no user's line is left out."""
    names: dict[int, bytes] = {}
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == _FIELDS and fields[0] and fields[_UID].isdigit() and len(fields[_UID]) <= _UID_DIGITS:
            names.setdefault(int(fields[_UID]), fields[0])
    return names
