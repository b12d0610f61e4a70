"""The exact paths of policies, resolved to the identities of their files once a second, in a thread of their own.

A filesystem that doesn't answer hangs this thread and nothing else: then the identities grow old, and status says so. An old one
means the file that stood there, and can't mean another.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from tracerd.fileid import Unresolved, identity, links_are_protected, suits
from tracerd.mounts import MountTable
from tracerd.names import Names

INTERVAL_S: Final = 1.0
#: Between two rounds, however often we are told that a name changed.
PAUSE_S: Final = 0.02
#: A round that takes longer is told of as stuck.
STUCK_S: Final = 2.0
#: Every path is resolved anew in one of so many rounds, also where stat(2) shows no difference: its clock is coarse.
ROUNDS: Final = 16
_TOLD_PATHS: Final = 64

_Seen: TypeAlias = tuple[int, int, int, int]


class Resolver:
    """What each path stood for when it was last looked at. No thread, no clock: a round is a call."""

    def __init__(self) -> None:
        """Raises OSError where the mounts can't be read."""
        self._mounts = MountTable()
        self._seen: dict[bytes, _Seen] = {}
        self._round = 0
        self.found: dict[bytes, bytes] = {}
        self.missing: dict[bytes, str] = {}  # path -> why
        self.at = b""  # the path in hand

    def round(self, paths: tuple[bytes, ...]) -> Names:
        """Looks at every path and returns the names of the files that were found. Raises OSError where mounts can't be read."""
        self._mounts.refresh()
        self._round += 1
        linked = links_are_protected()
        found: dict[bytes, bytes] = {}
        missing: dict[bytes, str] = {}
        seen: dict[bytes, _Seen] = {}
        for number, path in enumerate(paths, self._round):
            self.at = path
            now = self._look(path)
            known = self.found.get(path)
            if now is not None:
                seen[path] = now
            if known is not None and now is not None and now == self._seen.get(path) and linked and number % ROUNDS:
                found[path] = known
                continue
            try:
                found[path] = identity(path, self._mounts, linked=linked)
            except Unresolved as why:
                missing[path] = str(why)
        self.at = b""
        self.found, self.missing, self._seen = found, missing, seen
        names: dict[bytes | None, tuple[bytes, ...]] = {}
        for path, number_of in found.items():
            names[number_of] = (*names.get(number_of, ()), path)
        return names

    def _look(self, path: bytes) -> _Seen | None:
        if not suits(path, self._mounts):
            return None
        try:
            now = os.lstat(path)
        except OSError:
            return None
        return now.st_dev, now.st_ino, now.st_ctime_ns, now.st_mode

    def close(self) -> None:
        """Closes what it holds."""
        self._mounts.close()


class PathWatch(threading.Thread):
    """Keeps the identities of paths fresh, and hands them on when they change."""

    def __init__(self, publish: Callable[[Names], None]) -> None:
        """publish: called from the thread, so it may do no more than set something."""
        super().__init__(name="paths", daemon=True)
        self._publish = publish
        self._paths: tuple[bytes, ...] = ()
        self._due = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # of what report() reads
        self._resolved = 0
        self._missing: dict[bytes, str] = {}
        self._looked = 0.0
        self._done = 0
        self._changes = 0
        self._failure = ""
        self._began: float | None = None
        self._timeouts = 0
        self._resolver: Resolver | None = None

    @property
    def paths(self) -> tuple[bytes, ...]:
        """What is watched."""
        return self._paths

    def watch(self, paths: tuple[bytes, ...]) -> None:
        """Watches other paths from now on; they are resolved at once."""
        self._paths = paths
        self._due.set()

    def wake(self) -> None:
        """A name that is watched was given to another file: looks at once."""
        self._due.set()

    def stop(self) -> None:
        """Lets the thread end, if it isn't stuck."""
        self._ended.set()
        self._due.set()

    def run(self) -> None:
        """What the thread does."""
        names: Names = {}
        while not self._ended.is_set():
            self._due.clear()
            paths = self._paths
            if paths or names:
                names = self._look(paths, names)
            self._ended.wait(PAUSE_S)
            self._due.wait(INTERVAL_S if self._paths else None)
        if self._resolver is not None:
            self._resolver.close()

    def _look(self, paths: tuple[bytes, ...], before: Names) -> Names:
        with self._lock:
            self._began = time.monotonic()
        try:
            if self._resolver is None:
                self._resolver = Resolver()
            names = self._resolver.round(paths)
            missing, failure = self._resolver.missing, ""
        except OSError as error:
            names, missing, failure = {}, {}, f"/proc/self/mountinfo: {error.strerror}"
        if names != before:
            self._publish(names)
        now = time.monotonic()
        with self._lock:
            self._timeouts += now - self._began > STUCK_S
            self._resolved, self._missing, self._failure = sum(map(len, names.values())), missing, failure
            self._changes += names != before
            self._looked, self._done, self._began = now, self._done + 1, None
        return names

    def report(self) -> dict[str, Any]:
        """Returns how the paths fare, for status: how many are resolved, why others are not, and when it was looked last."""
        now = time.monotonic()
        with self._lock:
            reasons = Counter(self._missing.values())
            took = 0.0 if self._began is None else now - self._began
            at = self._resolver.at if self._resolver is not None else b""
            return {
                "watched": len(self._paths),
                "resolved": self._resolved,
                "unresolved": dict(sorted(reasons.items())),
                "looked_ms": round((now - self._looked) * 1000) if self._done else None,
                "changes": self._changes,
                "timeouts": self._timeouts + (took > STUCK_S),
                "stuck_at": at.decode("utf-8", "backslashreplace") if took > STUCK_S else "",
                "failure": self._failure,
            }

    def unresolved(self) -> list[dict[str, str]]:
        """Returns the first paths that are matched by name only, each with why, for doctor."""
        with self._lock:
            some = sorted(self._missing.items())[:_TOLD_PATHS]
        return [{"path": path.decode("utf-8", "backslashreplace"), "reason": why} for path, why in some]
