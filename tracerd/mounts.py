"""What is mounted where, in our own mount namespace: looked up without touching a filesystem, which may be dead."""

from __future__ import annotations

import re
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

MOUNTINFO: Final = Path("/proc/self/mountinfo")
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount: the device that the kernel has for its filesystem, and of what type that is."""

    device: tuple[int, int]
    kind: str


def parse_mounts(lines: Iterable[bytes]) -> dict[bytes, Mount]:
    """Returns mounts by where they are, from lines of proc(5)'s mountinfo; of several in one place, the topmost."""
    found: dict[bytes, Mount] = {}
    for line in lines:
        own, _, rest = line.partition(b" - ")
        fields = own.split()
        if len(fields) < 5 or not rest:
            continue
        major, _, minor = fields[2].partition(b":")
        where = _ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), fields[4])
        found[where] = Mount((int(major), int(minor)), rest.split(b" ", 1)[0].decode("ascii", "replace"))
    return found


class MountTable:
    """The mounts as they are now: read again when the kernel says that something changed."""

    def __init__(self) -> None:
        """Raises OSError where /proc can't be read."""
        self._file = MOUNTINFO.open("rb")  # kept open: it is what is polled
        self._poll = select.poll()
        self._poll.register(self._file.fileno(), select.POLLPRI | select.POLLERR)
        self._mounts: dict[bytes, Mount] = {}
        self._kinds: dict[tuple[int, int], str] = {}
        self._fresh = False

    def refresh(self) -> None:
        """Reads the table if it has changed since. Raises OSError."""
        if self._fresh and not self._poll.poll(0):
            return
        self._file.seek(0)
        self._mounts = parse_mounts(self._file)
        self._kinds = {mount.device: mount.kind for mount in self._mounts.values()}
        self._fresh = True

    def kind_at(self, path: bytes) -> str:
        """Returns the type of the filesystem that a path without symbolic links lies in; "" where that isn't known."""
        at = path
        while at:
            mount = self._mounts.get(at)
            if mount is not None:
                return mount.kind
            at = at.rpartition(b"/")[0]
        root = self._mounts.get(b"/")
        return "" if root is None else root.kind

    def kind_of(self, device: tuple[int, int]) -> str:
        """Returns the type of the filesystem that has this device; "" where none is mounted."""
        return self._kinds.get(device, "")

    def close(self) -> None:
        """Closes the table's file."""
        self._file.close()
