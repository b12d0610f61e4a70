"""Files that decide what is killed: nobody but root and ourselves may have written them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

MAX_LINKS: Final = 40  # on one path, as the kernel's own bound


class Untrusted(Exception):
    """A file that can be read and must not be used."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def distrust(path: str | Path, found: os.stat_result, owners: Collection[int]) -> tuple[str, str] | None:
    """Returns why a file or folder isn't to be trusted, and a hint; None where only owners may write to it."""
    if found.st_uid not in owners:
        return f"owned by uid {found.st_uid}, who is neither root nor the service", f"chown root {path}"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0):
        return "may be written by others", f"chmod go-w {path}"
    return None


def distrust_way(path: Path, owners: Collection[int]) -> tuple[Path, str, str] | None:
    """Looks at every folder and symbolic link on the way to a file or folder, and at itself.

    Returns the first that isn't to be trusted, why, and a hint; None where nobody but owners can put something else in its
    place. Raises OSError for a path that leads nowhere.
    """
    todo, at, links = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while True:
        found = at.lstat()
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
            if found.st_uid not in owners:
                return at, f"a link of uid {found.st_uid}, who is neither root nor the service", f"chown -h root {at}"
            target = at.readlink()
            at = Path("/") if target.is_absolute() else at.parent
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        elif (doubt := distrust(at, found, owners)) and not (todo and _is_shared(found, owners)):
            return at, *doubt
        if not todo:
            return None
        name = todo.pop()
        at = at.parent if name == ".." else at / name


def _is_shared(found: os.stat_result, owners: Collection[int]) -> bool:
    """Whether it is like /tmp: everybody may make files in it, and only their owners may replace them."""
    return found.st_uid in owners and bool(found.st_mode & stat.S_ISVTX)


def read_trusted(path: str | Path, owners: Collection[int], max_bytes: int) -> bytes:
    """Returns what is in a file that only owners may write to. Raises Untrusted, or OSError where it can't be read."""
    # Checked on the open file, so that what was checked is what is read. O_NONBLOCK: a FIFO must not stop us.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Untrusted("not a regular file", "remove it, or name another one")
        if doubt := distrust(path, found, owners):
            raise Untrusted(*doubt)
        if found.st_size > max_bytes:
            raise Untrusted(f"{found.st_size} bytes, and {max_bytes} are the limit", "split it")
        return _read(fd, found.st_size, max_bytes)
    finally:
        os.close(fd)


def _read(fd: int, size: int, max_bytes: int) -> bytes:
    """Reads to the end, which may have moved since the size was asked for. A file object would allocate all of max_bytes."""
    parts: list[bytes] = []
    left = max_bytes
    while left > 0:
        asked = min(left, max(size + 1, 4096))
        parts.append(os.read(fd, asked))
        left -= len(parts[-1])
        if len(parts[-1]) < asked:
            break
    return b"".join(parts)
