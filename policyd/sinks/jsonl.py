"""The alert file: one JSON object a line, the newest last, bounded by rotation; and reading it back, newest first.

This is the sink that acknowledgements wait for, so a write returns only when the lines are on the disk.
"""

from __future__ import annotations

import errno
import json
import os
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from policyd.sinks.base import Alert, SinkStats, alert_line

REMEMBERED_IDS: Final = 10_000
MAX_UNWRITTEN: Final = 256  # kept in memory while the disk refuses
MAX_LINE_BYTES: Final = 8 * 1024 * 1024  # a longer line is no alert of ours
_CHUNK_BYTES: Final = 64 * 1024


class AlertFile:
    """Appends alerts to a file that is rotated to FILE.1, FILE.2 ... FILE.keep. Used by one thread at a time."""

    name = "file"

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        """Opens the file, mode 0640, cuts off a line that a crash left unfinished, and reads which ids it holds.

        Raises OSError.
        """
        self.path = path
        self.stats = SinkStats()
        self.rotations = 0
        self._max_bytes = max_bytes
        self._keep = keep
        self._unwritten: deque[bytes] = deque(maxlen=MAX_UNWRITTEN)
        self._fd = self._open()
        # Filled oldest first, so that what is forgotten first is what is oldest.
        found = [alert_id for alert in read_newest_first(path, keep, REMEMBERED_IDS) if (alert_id := id_of(alert))]
        self._ids: OrderedDict[str, None] = OrderedDict.fromkeys(reversed(found))

    @property
    def unwritten(self) -> int:
        """Alerts that wait in memory for a disk that refused them."""
        return len(self._unwritten)

    def holds(self, alert_id: str) -> bool:
        """Whether an alert of that id was written, as far as the last REMEMBERED_IDS tell."""
        return alert_id in self._ids

    def write_all(self, alerts: Sequence[Alert]) -> None:
        """Appends alerts and returns when they are on the disk. Raises OSError; the alerts are then tried again next time.

        Of those that wait then, at most MAX_UNWRITTEN are kept, and the rest counted as dropped.
        """
        for alert in alerts:
            if alert_id := id_of(alert):
                self._remember(alert_id)
        lines = [*self._unwritten, *map(alert_line, alerts)]
        written = 0
        try:
            self._reopen_if_moved()
            for line in lines:
                self._append(line)
                written += 1
            os.fdatasync(self._fd)
        except OSError as error:
            self.stats.failed += len(alerts)
            self.stats.last_error = str(error)
            raise
        finally:
            self.stats.written += written
            self.stats.dropped += max(0, len(lines) - written - MAX_UNWRITTEN)
            self._unwritten = deque(lines[written:], MAX_UNWRITTEN)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)

    def _remember(self, alert_id: str) -> None:
        self._ids[alert_id] = None
        if len(self._ids) > REMEMBERED_IDS:
            self._ids.popitem(last=False)

    def _open(self) -> int:
        # O_NOFOLLOW: the folder is ours, but a link in it to somewhere else would not be.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o640)
        try:
            _cut_unfinished_line(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _reopen_if_moved(self) -> None:
        ours = os.fstat(self._fd)
        try:
            there = self.path.lstat()
            moved = (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
        except FileNotFoundError:
            moved = True
        if moved:
            self._replace(self._open())

    def _replace(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._fd).st_size
        if size and size + len(line) > self._max_bytes:
            self._rotate()
            size = 0
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self.path))
        except OSError:
            os.ftruncate(self._fd, size)  # half a line would swallow the next one
            raise

    def _rotate(self) -> None:
        os.fdatasync(self._fd)
        for number in range(self._keep - 1, 0, -1):
            older = _rotated(self.path, number)
            if older.exists():
                older.rename(_rotated(self.path, number + 1))
        self.path.rename(_rotated(self.path, 1))
        self._replace(self._open())
        self.rotations += 1


def _rotated(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _cut_unfinished_line(fd: int) -> None:
    end = os.fstat(fd).st_size
    at = end
    while at > 0:
        start = max(0, at - _CHUNK_BYTES)
        newline = os.pread(fd, at - start, start).rfind(b"\n")
        if newline >= 0:
            at = start + newline + 1
            break
        at = start
    if at != end:
        os.ftruncate(fd, at)


def id_of(alert: Alert) -> str:
    """Returns the alert's id, empty where it has none."""
    own = alert.get("execray")
    found = own.get("alert_id") if isinstance(own, dict) else None
    return found if isinstance(found, str) else ""


def read_newest_first(path: Path, keep: int, limit: int, containing: bytes = b"") -> Iterator[dict[str, Any]]:
    """Yields at most limit alerts of the file and its rotated ones, the newest first. Lines that aren't alerts are skipped.

    containing: lines without these bytes are skipped before they are parsed, which is most of the cost.
    Raises OSError, except for files that don't exist.
    """
    left = limit
    for file in (path, *(_rotated(path, number) for number in range(1, keep + 1))):
        try:
            lines = _lines_backwards(file)
            for line in lines:
                if left == 0:
                    lines.close()
                    return
                alert = _parsed(line) if containing in line else None
                if alert is not None:
                    yield alert
                    left -= 1
        except FileNotFoundError:
            continue


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        alert = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return alert if isinstance(alert, dict) and id_of(alert) else None


def _lines_backwards(path: Path) -> Generator[bytes, None, None]:
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        tail = b""
        while at > 0:
            start = max(0, at - _CHUNK_BYTES)
            file.seek(start)
            lines = (file.read(at - start) + tail).split(b"\n")
            at = start
            tail = lines.pop(0)
            if len(tail) > MAX_LINE_BYTES:
                tail = b""
            yield from (line for line in reversed(lines) if line)
        if tail:
            yield tail
